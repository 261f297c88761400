//! Causes of waits for a credential or a budget.

use super::{Cause, cause, seconds};
use crate::Timestamp;
use crate::quota::{self, CredentialId};
use crate::spending::BudgetWait;

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
    cause("budget_spent", message, "wait, or raise the budget: the task continues by itself")
}
