//! Whether a `Task` can be handed in at all: what the cluster's own rules could not see. Pure.

use rota_crds::resource::Task;

/// A sentence for each thing that is wrong.
pub(crate) fn check(task: &Task) -> Result<(), String> {
    let violations = task.validate();
    if violations.is_empty() {
        return Ok(());
    }
    let sentences: Vec<_> = violations.iter().map(ToString::to_string).collect();
    Err(sentences.join("; "))
}
