//! Whether an `Agent` makes sense: what the cluster's own rules could not see. Pure.

use rota_crds::resource::Agent;

use super::pod::Recipe;
use super::status::Trouble;
use crate::WorkerOptions;

/// What its pods are made from, as a hash.
pub(super) fn check(agent: &Agent, options: &WorkerOptions) -> Result<String, Trouble> {
    let violations = agent.validate();
    if !violations.is_empty() {
        let sentences: Vec<_> = violations.iter().map(ToString::to_string).collect();
        return Err(Trouble::new("InvalidSpec", sentences.join("; ")));
    }
    let recipe = Recipe { agent, options, task: None };
    recipe.hash().map_err(|malformed| Trouble::new("InvalidSpec", malformed.0))
}
