//! Stored workflows as messages.

use rota_core::workflow::{self, Step, Workflow};
use rota_proto::{num, v1};

use super::super::time;

/// Converts a record, with its spec and outputs if they are given.
pub(crate) fn workflow(
    record: &Workflow,
    spec: Option<v1::WorkflowSpec>,
    outputs: Option<pbjson_types::Struct>,
) -> v1::Workflow {
    let brief = || v1::WorkflowSpec {
        title: record.title.clone(),
        owner: record.owner.clone(),
        ..v1::WorkflowSpec::default()
    };
    let state = match record.state {
        workflow::State::Running if record.paused => v1::WorkflowState::Paused,
        workflow::State::Running | workflow::State::Ending => v1::WorkflowState::Running,
        workflow::State::Stopping => v1::WorkflowState::Stopping,
        workflow::State::Compensating => v1::WorkflowState::Compensating,
        workflow::State::Finalizing => v1::WorkflowState::Finalizing,
        workflow::State::Succeeded => v1::WorkflowState::Succeeded,
        workflow::State::Failed => v1::WorkflowState::Failed,
        workflow::State::Cancelled => v1::WorkflowState::Cancelled,
        workflow::State::CompensationFailed => v1::WorkflowState::CompensationFailed,
    };
    let parent = record.parent.as_ref();
    v1::Workflow {
        name: format!("namespaces/{}/workflows/{}", record.namespace, record.id),
        uid: record.id.to_string(),
        alias: record.alias.clone().unwrap_or_default(),
        spec: Some(spec.unwrap_or_else(brief)),
        labels: record.labels.clone(),
        status: Some(v1::WorkflowStatus {
            state: state.into(),
            message: record.message.clone(),
            failed_step: record.failed_step.clone(),
            counts: Some(v1::StepCounts {
                total: num::to_i32(record.total()),
                running: num::to_i32(record.active),
                succeeded: num::to_i32(record.succeeded),
                failed: num::to_i32(record.failed),
                skipped: num::to_i32(record.skipped),
            }),
            outputs,
            end_time: record.ended_at.map(time::timestamp),
            paused: record.paused,
            cancelled: record.cancelled,
            concurrency_group: group(record.group.as_deref()),
            waits_for_group: record.waits_for_group(),
            template: record.template.clone(),
            cost_micro_usd: record.cost_micro_usd,
            budget_micro_usd: record.budget_micro_usd.unwrap_or_default(),
            rerun: record.rerun.map(|id| id.to_string()).unwrap_or_default(),
            trace_id: rota_telemetry::trace::hex(&record.trace.trace_id),
        }),
        create_time: Some(time::timestamp(record.created_at)),
        ttl_after_finished: record.ttl.map(time::duration),
        rerun_of: record.rerun_of.map(|id| id.to_string()).unwrap_or_default(),
        parent_workflow: parent.map(|parent| parent.step.id.to_string()).unwrap_or_default(),
        parent_step: parent.map(|parent| parent.step.name.clone()).unwrap_or_default(),
    }
}

/// Returns the stored state of a state of the API. PAUSED is none of its own.
pub(crate) fn from_state(state: v1::WorkflowState) -> Option<workflow::State> {
    match state {
        v1::WorkflowState::Unspecified | v1::WorkflowState::Paused => None,
        v1::WorkflowState::Running => Some(workflow::State::Running),
        v1::WorkflowState::Stopping => Some(workflow::State::Stopping),
        v1::WorkflowState::Compensating => Some(workflow::State::Compensating),
        v1::WorkflowState::Finalizing => Some(workflow::State::Finalizing),
        v1::WorkflowState::Succeeded => Some(workflow::State::Succeeded),
        v1::WorkflowState::Failed => Some(workflow::State::Failed),
        v1::WorkflowState::Cancelled => Some(workflow::State::Cancelled),
        v1::WorkflowState::CompensationFailed => Some(workflow::State::CompensationFailed),
    }
}

fn group(group: Option<&workflow::Group>) -> String {
    group.map(|group| group.name.clone()).unwrap_or_default()
}

fn step_kind(kind: workflow::Kind) -> v1::StepKind {
    match kind {
        workflow::Kind::Task => v1::StepKind::Task,
        workflow::Kind::Workflow => v1::StepKind::Workflow,
        workflow::Kind::Approval { .. } => v1::StepKind::Approval,
        workflow::Kind::Sleep { .. } => v1::StepKind::Sleep,
        workflow::Kind::Signal { .. } => v1::StepKind::Signal,
    }
}

pub(crate) fn step_state(state: workflow::StepState) -> v1::StepState {
    match state {
        workflow::StepState::Waiting => v1::StepState::Waiting,
        workflow::StepState::Held => v1::StepState::Held,
        workflow::StepState::Ready => v1::StepState::Ready,
        workflow::StepState::Running => v1::StepState::Running,
        workflow::StepState::Ending => v1::StepState::Ending,
        workflow::StepState::Succeeded => v1::StepState::Succeeded,
        workflow::StepState::Failed => v1::StepState::Failed,
        workflow::StepState::Skipped => v1::StepState::Skipped,
        workflow::StepState::Cancelled => v1::StepState::Cancelled,
    }
}

fn resolved(record: &workflow::Resolved) -> v1::ResolvedCompensation {
    let resolution = match record.resolution {
        workflow::Resolution::Retry => v1::CompensationResolution::Retry,
        workflow::Resolution::Done => v1::CompensationResolution::Done,
        workflow::Resolution::Skip => v1::CompensationResolution::Skip,
    };
    v1::ResolvedCompensation {
        failure: num::to_i32(record.failure),
        resolution: resolution.into(),
        by: record.by.clone(),
        by_subject: record.by_subject.clone(),
        note: record.note.clone(),
        time: Some(time::timestamp(record.at)),
    }
}

pub(crate) fn step(workflow: &Workflow, record: &Step) -> v1::StepStatus {
    let is_workflow = record.kind == workflow::Kind::Workflow;
    let newest = record.created.checked_sub(1).filter(|_| is_workflow && !record.reused);
    let last_workflow = newest.map(|item| workflow.nested_id(record.index, record.round, item));
    v1::StepStatus {
        name: record.name.clone(),
        index: num::to_i32(record.index),
        state: match record.waits_for_group() {
            true => v1::StepState::Held,
            false => step_state(workflow.state_of(record)),
        }
        .into(),
        message: record.message.clone(),
        round: num::to_i32(record.round),
        tasks_total: num::to_i32(record.total),
        tasks_created: num::to_i32(record.created),
        tasks_succeeded: num::to_i32(record.succeeded),
        tasks_failed: num::to_i32(record.failed),
        start_time: record.ready_at.map(time::timestamp),
        end_time: record.ended_at.map(time::timestamp),
        deadline: record.due.map(time::timestamp),
        prompt: record.question.clone(),
        compensation: record.compensation.map_or(v1::StepState::Unspecified, step_state).into(),
        finally: record.finally,
        last_task: record.last_task.map(|id| id.to_string()).unwrap_or_default(),
        reused: record.reused,
        concurrency_group: group(record.group.as_deref()),
        waits_for_group: record.waits_for_group(),
        template: record.template.as_ref().map(ToString::to_string).unwrap_or_default(),
        last_workflow: last_workflow.map(|id| id.to_string()).unwrap_or_default(),
        compensation_failures: num::to_i32(record.compensation_failures()),
        resolved_compensation: record.resolved.as_deref().map(resolved),
        kind: step_kind(record.kind).into(),
    }
}
