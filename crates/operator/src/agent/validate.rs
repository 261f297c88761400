//! Validates an `Agent` beyond the CEL rules of the cluster. Pure.

use rota_crds::resource::Agent;

use super::network;
use super::pod::PodSpecInput;
use super::start_failure::StartFailure;
use crate::WorkerOptions;

/// Returns the hash of the agent's pod spec, or why the agent is invalid.
pub(super) fn check(agent: &Agent, options: &WorkerOptions) -> Result<String, StartFailure> {
    let violations = agent.validate();
    if !violations.is_empty() {
        let violations: Vec<_> = violations.iter().map(ToString::to_string).collect();
        return Err(StartFailure::invalid_spec(violations.join("; ")));
    }
    if let Some(exceeds) = network::exceeds(agent, options) {
        return Err(StartFailure::invalid_spec(exceeds));
    }
    let input = PodSpecInput { agent, options, task: None };
    input.hash().map_err(|invalid| StartFailure::invalid_spec(invalid.0))
}
