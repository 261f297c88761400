//! Whether a `Task` can be handed in at all: what the cluster's own rules could not see. Pure.

use kube::ResourceExt;
use rota_crds::resource::Task;
use rota_crds::{API_VERSION, ObjectMeta, Unread};

/// A sentence for each thing that is wrong.
pub(crate) fn check(task: &Task) -> Result<(), String> {
    // As a manifest: there is one validation, whoever applies it.
    let manifest = rota_crds::Task {
        api_version: API_VERSION.to_owned(),
        kind: "Task".to_owned(),
        metadata: ObjectMeta {
            name: Some(task.name_any()),
            namespace: task.namespace(),
            ..Default::default()
        },
        spec: task.spec.clone(),
        status: Unread,
    };
    let violations = manifest.validate();
    if violations.is_empty() {
        return Ok(());
    }
    let sentences: Vec<_> = violations.iter().map(ToString::to_string).collect();
    Err(sentences.join("; "))
}
