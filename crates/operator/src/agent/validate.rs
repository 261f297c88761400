//! Whether an `Agent` makes sense: what the cluster's own rules could not see. Pure.

use kube::ResourceExt;
use rota_crds::resource::Agent;
use rota_crds::{API_VERSION, ObjectMeta, Unread};

use super::pod::Recipe;
use super::status::Trouble;
use crate::WorkerOptions;

/// What its pods are made from, as a hash.
pub(super) fn check(agent: &Agent, options: &WorkerOptions) -> Result<String, Trouble> {
    // As a manifest: there is one validation, whoever applies it.
    let manifest = rota_crds::Agent {
        api_version: API_VERSION.to_owned(),
        kind: "Agent".to_owned(),
        metadata: ObjectMeta {
            name: Some(agent.name_any()),
            namespace: agent.namespace(),
            ..Default::default()
        },
        spec: agent.spec.clone(),
        status: Unread,
    };
    let violations = manifest.validate();
    if !violations.is_empty() {
        let sentences: Vec<_> = violations.iter().map(ToString::to_string).collect();
        return Err(Trouble::new("InvalidSpec", sentences.join("; ")));
    }
    let recipe = Recipe { agent, options, task: None };
    recipe.hash().map_err(|malformed| Trouble::new("InvalidSpec", malformed.0))
}
