//! State of what has failed, for readers of a notification who have no access to Rota.

use rota_core::failure::Failure;
use rota_core::task::Task;
use rota_core::workflow::Workflow;
use serde::Serialize;

use super::message::cut;
use crate::wire;

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Snapshot {
    Task(TaskSnapshot),
    Workflow(WorkflowSnapshot),
}

#[derive(Debug, Serialize)]
pub(super) struct TaskSnapshot {
    severity: String,
    attempts: u32,
    failed_attempts: u32,
    worker_losses: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_worker: String,
    /// Time on workers of all attempts.
    worked_seconds: u64,
    cost_usd: String,
    created: String,
    /// When the next attempt may start.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

impl TaskSnapshot {
    pub(super) fn new(task: &Task, failure: &Failure) -> Self {
        Self {
            severity: wire::failure::severity_name(failure.severity),
            attempts: task.attempts,
            failed_attempts: task.failed_attempts(),
            worker_losses: task.worker_losses,
            last_worker: task.last_worker.as_ref().map(ToString::to_string).unwrap_or_default(),
            worked_seconds: task.worked.as_secs(),
            cost_usd: rota_core::usage::usd(task.usage.cost_micro_usd),
            created: wire::time::rfc3339(task.created_at),
            retry: task.retry_at.map(wire::time::rfc3339),
            hint: cut(&failure.hint),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct WorkflowSnapshot {
    steps: u32,
    succeeded: u32,
    failed: u32,
    skipped: u32,
    /// Of all tasks, if a budget has them counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<String>,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
}

impl WorkflowSnapshot {
    pub(super) fn new(workflow: &Workflow) -> Self {
        Self {
            steps: workflow.total(),
            succeeded: workflow.succeeded,
            failed: workflow.failed,
            skipped: workflow.skipped,
            cost_usd: workflow.counts_cost.then(|| rota_core::usage::usd(workflow.cost_micro_usd)),
            created: wire::time::rfc3339(workflow.created_at),
            ended: workflow.ended_at.map(wire::time::rfc3339),
        }
    }
}
