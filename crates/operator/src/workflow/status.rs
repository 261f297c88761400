//! Derives the status of a `Workflow` resource from its record. Pure.

use jiff::Timestamp;
use rota_core::text::prefix;
use rota_crds::Time;
use rota_crds::resource::{Workflow, WorkflowPhase, WorkflowStatus, WorkflowSteps, condition};
use rota_proto::v1::{self, WorkflowState};

use crate::condition::Conditions;
use crate::control_store::Loss;

pub(super) const MAX_MESSAGE_BYTES: usize = 1024;
/// Reasons of the status of a workflow that waits.
pub(super) const WAITS_FOR_APPROVAL: &str = "WaitsForApproval";
pub(super) const WAITS_FOR_GROUP: &str = "WaitsForGroup";

/// What a running workflow waits for.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub reason: &'static str,
    pub message: String,
}

/// Returns the message of a workflow whose record is missing, with what happened to the store.
pub(super) fn record_missing(loss: Option<Loss>) -> String {
    let cause = loss.map(|loss| format!(": {}", loss.describe())).unwrap_or_default();
    format!("the control plane no longer has a record of this workflow{cause}; the workflow is not run again")
}

/// Returns whether the phase is final.
pub(super) fn is_final(phase: WorkflowPhase) -> bool {
    matches!(
        phase,
        WorkflowPhase::Succeeded
            | WorkflowPhase::Failed
            | WorkflowPhase::Cancelled
            | WorkflowPhase::CompensationFailed
            | WorkflowPhase::OutcomeUnknown
    )
}

pub(super) fn phase(record: &v1::Workflow) -> WorkflowPhase {
    match record.status.as_ref().map_or(WorkflowState::Unspecified, v1::WorkflowStatus::state) {
        WorkflowState::Unspecified => WorkflowPhase::Pending,
        WorkflowState::Running => WorkflowPhase::Running,
        WorkflowState::Paused => WorkflowPhase::Paused,
        WorkflowState::Stopping => WorkflowPhase::Stopping,
        WorkflowState::Compensating => WorkflowPhase::Compensating,
        WorkflowState::Finalizing => WorkflowPhase::Finalizing,
        WorkflowState::Succeeded => WorkflowPhase::Succeeded,
        WorkflowState::Failed => WorkflowPhase::Failed,
        WorkflowState::Cancelled => WorkflowPhase::Cancelled,
        WorkflowState::CompensationFailed => WorkflowPhase::CompensationFailed,
    }
}

/// Builds the status of a record. `waits_for` is a person or a group that it waits for.
pub(super) fn build(
    workflow: &Workflow,
    record: &v1::Workflow,
    waits_for: Option<Wait>,
    now: Timestamp,
) -> WorkflowStatus {
    let status = record.status.clone().unwrap_or_default();
    let counts = status.counts.unwrap_or_default();
    let phase = phase(record);
    let reason = match (phase, &waits_for) {
        (WorkflowPhase::Running, Some(wait)) => Some(wait.reason.to_owned()),
        (phase, _) if is_final(phase) && phase != WorkflowPhase::Succeeded => {
            Some(if status.failed_step.is_empty() { format!("{phase:?}") } else { "StepFailed".to_owned() })
        }
        _ => None,
    };
    let failed = Some(prefix(&status.message, MAX_MESSAGE_BYTES).to_owned());
    let ended = counts.succeeded + counts.failed + counts.skipped;
    let mut built = WorkflowStatus {
        conditions: Vec::new(),
        observed_generation: workflow.metadata.generation,
        phase,
        reason,
        message: failed.filter(|message| !message.is_empty()).or(waits_for.map(|wait| wait.message)),
        workflow_id: Some(record.uid.clone()),
        progress: Some(format!("{ended}/{}", counts.total)),
        steps: Some(WorkflowSteps {
            total: counts.total,
            running: counts.running,
            succeeded: counts.succeeded,
            failed: counts.failed,
            skipped: counts.skipped,
        }),
        failed_step: Some(status.failed_step).filter(|step| !step.is_empty()),
        start_time: record.create_time.as_ref().and_then(time),
        completion_time: status.end_time.as_ref().and_then(time),
    };
    conditions(workflow, &mut built, now);
    built
}

/// Builds the final status of a workflow that was never accepted, or whose record is missing.
pub(super) fn ended(
    workflow: &Workflow,
    phase: WorkflowPhase,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> WorkflowStatus {
    let mut built =
        WorkflowStatus { completion_time: Some(Time(now)), ..unsubmitted(workflow, reason, message) };
    built.phase = phase;
    conditions(workflow, &mut built, now);
    built
}

/// Builds the status of a workflow that cannot be submitted for a while.
pub(super) fn unsubmitted(workflow: &Workflow, reason: &str, message: &str) -> WorkflowStatus {
    WorkflowStatus {
        observed_generation: workflow.metadata.generation,
        reason: Some(reason.to_owned()),
        message: Some(prefix(message, MAX_MESSAGE_BYTES).to_owned()),
        ..workflow.status.clone().unwrap_or_default()
    }
}

fn conditions(workflow: &Workflow, built: &mut WorkflowStatus, now: Timestamp) {
    let all = Conditions {
        old: workflow.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default(),
        generation: workflow.metadata.generation,
        reason: built.reason.clone().unwrap_or_else(|| format!("{:?}", built.phase)),
        message: built.message.clone().unwrap_or_default(),
        now,
    };
    let phase = built.phase;
    built.conditions.clear();
    let runs = !is_final(phase) && phase != WorkflowPhase::Pending && phase != WorkflowPhase::Paused;
    all.put(&mut built.conditions, condition::RUNNING, runs);
    all.put(&mut built.conditions, condition::COMPLETE, phase == WorkflowPhase::Succeeded);
    all.put(&mut built.conditions, condition::FAILED, is_final(phase) && phase != WorkflowPhase::Succeeded);
}

fn time(time: &pbjson_types::Timestamp) -> Option<Time> {
    // Whole seconds, as Kubernetes writes them.
    Timestamp::from_second(time.seconds).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: WorkflowState, message: &str) -> v1::Workflow {
        let counts = v1::StepCounts { total: 7, succeeded: 2, failed: 1, ..Default::default() };
        let mut status = v1::WorkflowStatus {
            message: message.to_owned(),
            failed_step: if message.is_empty() { String::new() } else { "build".to_owned() },
            counts: Some(counts),
            ..Default::default()
        };
        status.set_state(state);
        v1::Workflow { uid: "u".into(), status: Some(status), ..Default::default() }
    }

    fn built(record: &v1::Workflow, waits_for: Option<Wait>) -> WorkflowStatus {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        build(&Workflow::default(), record, waits_for, now)
    }

    #[test]
    fn progress_and_question_are_shown() {
        let waits = |reason| Some(Wait { reason, message: "step ask waits".to_owned() });
        let group = built(&record(WorkflowState::Running, ""), waits(WAITS_FOR_GROUP));
        assert_eq!(group.reason.as_deref(), Some("WaitsForGroup"));
        let status = built(&record(WorkflowState::Running, ""), waits(WAITS_FOR_APPROVAL));
        assert_eq!(status.progress.as_deref(), Some("3/7"));
        assert_eq!(status.reason.as_deref(), Some("WaitsForApproval"));
        assert_eq!(status.message.as_deref(), Some("step ask waits"));
        assert_eq!(status.conditions[0].type_, condition::RUNNING);
    }

    #[test]
    fn failure_names_its_step() {
        let status = built(&record(WorkflowState::Failed, "step build failed: no"), None);
        assert_eq!((status.phase, status.reason.as_deref()), (WorkflowPhase::Failed, Some("StepFailed")));
        assert_eq!(status.failed_step.as_deref(), Some("build"));
        let failed = status.conditions.iter().find(|one| one.type_ == condition::FAILED).unwrap();
        assert_eq!((failed.status.as_str(), failed.message.as_str()), ("True", "step build failed: no"));
    }

    #[test]
    fn long_messages_are_cut() {
        let long = "x".repeat(100_000);
        let status = built(&record(WorkflowState::Failed, &long), None);
        assert_eq!(status.message.unwrap().len(), MAX_MESSAGE_BYTES);
        let refused =
            ended(&Workflow::default(), WorkflowPhase::Failed, "InvalidSpec", &long, Timestamp::UNIX_EPOCH);
        assert!(serde_json::to_string(&refused).unwrap().len() < 4096);
    }
}
