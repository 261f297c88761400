//! Causes of waits for a credential, a budget or another delivery.

use super::{Cause, Context, cause, seconds};
use crate::Timestamp;
use crate::quota::{self, CredentialId};
use crate::spending::{BudgetWait, Scope};
use crate::task::{Task, Undelivered};

/// Returns the cause for a task whose credential cools down.
pub fn of_quota(credential: CredentialId, limit: &str, until: Timestamp, now: Timestamp) -> Cause {
    let wait = seconds(now, until);
    match limit {
        quota::INVALID => cause(
            "credential_rejected",
            format!("the model API rejects the credential {credential}; it is tried again in {wait}"),
            "replace the key: the task continues by itself with the new one",
        ),
        _ => cause(
            "rate_limit",
            format!(
                "the limit {limit} of the credential {credential} is reached; the task continues in {wait}"
            ),
            "wait, use another credential, or raise the limit",
        ),
    }
}

/// Returns the cause for a task that waits for a budget.
pub(super) fn of_budget(wait: &BudgetWait, now: Timestamp) -> Cause {
    let message = format!(
        "{} has no room for the task; it continues when running tasks leave some, or in {}",
        wait.describe(),
        seconds(now, wait.until)
    );
    let hint = match wait.scope {
        Scope::Workflow(_) => "wait: the task continues by itself",
        _ => "wait, or raise the budget: the task continues by itself",
    };
    cause("budget_spent", message, hint)
}

/// Returns the cause for an attempt that waits for its workspace, only delivers, or stores what it has left.
pub(super) fn of_running(task: &Task) -> Option<Cause> {
    if let Some(left) = task.undelivered {
        let message = format!("the work of attempt {} is done, and is being delivered", left.attempt);
        return Some(cause("delivery", message, ""));
    }
    if task.held_up_since().is_some() {
        let message = format!("attempt {} waits for a workspace that another attempt uses", task.attempt());
        let hint = "wait, or end what uses it: the log of the task names the directory";
        return Some(cause("workspace_busy", message, hint));
    }
    task.storing()?;
    let (worker, attempt) = (&task.assignment.as_ref()?.worker, task.attempt());
    let message = format!(
        "the work of attempt {attempt} is done, and worker {worker} has it on its disk until the storage of artifacts takes it"
    );
    let hint = "check the storage of artifacts, and that the worker runs; if its disk is lost, cancel the task and retry it";
    Some(cause("storing", message, hint))
}

/// Returns the cause for a task whose work could not be delivered.
pub(super) fn of_delivery(left: Undelivered, until: Timestamp, context: &Context, now: Timestamp) -> Cause {
    let (why, hint) = match &context.failure {
        Some(failure) => (format!(": {}", failure.message), failure.hint.as_str()),
        None => (String::new(), ""),
    };
    let message = format!(
        "the work of attempt {} is done and kept, and only its delivery is left: it is tried again in {}, after {} that failed, and given up in {}{why}",
        left.attempt,
        seconds(now, until),
        left.failed,
        seconds(now, left.until(now)),
    );
    cause("delivery", message, hint)
}
