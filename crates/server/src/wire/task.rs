//! Conversion of task records to tasks as callers read them.

use bytes::Bytes;
use prost::Message;
use rota_core::task::explain::{self, Wait};
use rota_core::task::{Desired, Task};
use rota_proto::num;
use rota_proto::{names, v1};
use rota_telemetry::trace::hex;

use super::{etag, event, failure, time};

pub(crate) fn desired(desired: Desired) -> v1::DesiredState {
    match desired {
        Desired::Run => v1::DesiredState::Run,
        Desired::Suspended => v1::DesiredState::Suspended,
        Desired::Cancelled => v1::DesiredState::Cancelled,
    }
}

pub(crate) fn from_desired(wanted: v1::DesiredState) -> Desired {
    match wanted {
        v1::DesiredState::Unspecified | v1::DesiredState::Run => Desired::Run,
        v1::DesiredState::Suspended => Desired::Suspended,
        v1::DesiredState::Cancelled => Desired::Cancelled,
    }
}

/// Converts a record, with its spec and its result if they are given.
pub(crate) fn to_wire(task: &Task, payload: Option<&Bytes>, result: Option<&Bytes>) -> v1::Task {
    let mut status = status(task);
    status.result = result.and_then(|bytes| v1::TaskResult::decode(&bytes[..]).ok());
    v1::Task {
        name: names::task(task.namespace.as_str(), task.id),
        uid: task.id.to_string(),
        alias: task.alias.clone().unwrap_or_default(),
        spec: Some(
            payload.and_then(|bytes| Box::decode(&bytes[..]).ok()).unwrap_or_else(|| Box::new(brief(task))),
        ),
        priority: Some(i32::from(task.priority.get())),
        labels: task.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        desired_state: desired(task.desired).into(),
        status: Some(Box::new(status)),
        create_time: Some(time::timestamp(task.created_at)),
        retry_of: task.retry_of.map(|id| id.to_string()).unwrap_or_default(),
        step: task.step.as_ref().map(|step| {
            Box::new(v1::TaskStep {
                workflow: step.id.to_string(),
                step: step.name.clone(),
                round: num::to_i32(step.round),
                item: num::to_i32(step.item),
                compensates: step.round == rota_core::workflow::COMPENSATION,
            })
        }),
        etag: etag::of_task(task),
    }
}

/// Returns what the record alone has of a task's spec: enough for tables and watches.
fn brief(task: &Task) -> v1::TaskSpec {
    v1::TaskSpec {
        title: task.title.clone(),
        owner: task.owner.clone(),
        target: Some(super::target::to_wire(&task.target)),
        thread: task.thread.clone().unwrap_or_default(),
        parent_task: task.parent.map(|id| id.to_string()).unwrap_or_default(),
        isolation: if task.target.is_own() { v1::Isolation::Pod.into() } else { 0 },
        ..v1::TaskSpec::default()
    }
}

fn status(task: &Task) -> v1::TaskStatus {
    let worker = task.assignment.as_ref().map(|a| &a.worker).or(task.last_worker.as_ref());
    v1::TaskStatus {
        state: event::state(task.state).into(),
        waiting: task.waits().into_iter().map(wait).collect(),
        attempt: num::to_i32(task.attempt()),
        worker: worker.map(ToString::to_string).unwrap_or_default(),
        escalated_to: task.escalated_to().map(ToString::to_string).unwrap_or_default(),
        progress: task.progress.as_ref().map(|p| v1::Progress { fraction: p.fraction, step: p.step.clone() }),
        failure: task.failure.as_ref().map(failure::to_wire),
        result: None,
        usage: Some(event::usage(&task.total_usage())),
        ready_time: task.ready_at.map(time::timestamp),
        start_time: task.started_at.map(time::timestamp),
        end_time: task.ended_at.map(time::timestamp),
        log_seq: num::to_i64(task.log_seq),
        trace_id: hex(&task.trace.trace_id),
        worker_losses: num::to_i32(task.worker_losses),
        has_artifacts: task.has_artifacts,
        delivering: task.delivers() && !task.state.is_final() || task.storing().is_some(),
        cancelling: task.desired == Desired::Cancelled && !task.state.is_final(),
        attention: task.needs_attention().then(|| v1::Attention {
            failed_attempts: num::to_i32(task.failed_attempts()),
            last_failure: task.last_failure.as_deref().map(failure::to_wire),
        }),
        refusal: explain::of_refusal(task).map(|cause| cause.message).unwrap_or_default(),
        pending_input: (task.open_questions())
            .filter_map(|(_, bytes)| v1::InputRequest::decode(&bytes[..]).ok())
            .collect(),
    }
}

fn wait(wait: Wait) -> v1::Wait {
    use v1::WaitReason as Reason;
    let (reason, what, until) = match wait {
        Wait::Dependency { name, .. } => (Reason::Dependency, name, None),
        Wait::Thread { id, .. } => (Reason::Dependency, id.to_string(), None),
        Wait::DependencyMissing(name) => (Reason::DependencyMissing, name, None),
        Wait::AgentMissing(name) => (Reason::AgentMissing, name, None),
        Wait::StartTime(at) => (Reason::StartTime, String::new(), Some(at)),
        Wait::RetryDelay(at) => (Reason::RetryDelay, String::new(), Some(at)),
        Wait::Delivery(left, until) => {
            (Reason::Delivery, format!("of attempt {}", left.attempt), Some(until))
        }
        Wait::Quota { limit, until, .. } => (Reason::Quota, limit, Some(until)),
        Wait::Budget(wait) => (Reason::Budget, wait.describe(), Some(wait.until)),
        Wait::Suspended => (Reason::Suspended, String::new(), None),
        Wait::Answer(_) => (Reason::Answer, String::new(), None),
    };
    v1::Wait { reason: reason.into(), subject: what, until: until.map(time::timestamp) }
}
