//! Validates a `Task` beyond the CEL rules of the cluster. Pure.

use rota_crds::resource::Task;

/// Returns all violations as one message.
pub(crate) fn check(task: &Task) -> Result<(), String> {
    let violations = task.validate();
    if violations.is_empty() {
        return Ok(());
    }
    let violations: Vec<_> = violations.iter().map(ToString::to_string).collect();
    Err(violations.join("; "))
}
