//! Lists of agents that each have a task of a step.

use rota_proto::v1;
use tonic::Status;

use crate::wire::status::invalid;
use crate::wire::{check, target};

/// Returns the agents that each have a task of a step, if it names them so.
pub(crate) fn all_agents(task: &v1::TaskSpec) -> Option<&[String]> {
    match &task.target.as_ref()?.kind {
        Some(v1::target::Kind::Agents(set)) if set.all => Some(&set.agents),
        _ => None,
    }
}

/// Checks a list of agents that each have a task of a step. Returns the task of one of them.
pub(super) fn one_of_all(field: &str, task: &v1::TaskSpec, repeats: bool) -> Result<v1::TaskSpec, Status> {
    let Some(agents) = all_agents(task) else { return Ok(task.clone()) };
    let field = format!("{field}.target.agents");
    if repeats {
        return Err(invalid(
            format!("{field}.all"),
            "must not be set with for_each, nor for a compensation or a conflict",
        ));
    }
    check::count(&format!("{field}.agents"), agents.len(), target::MAX_AGENTS)?;
    if agents.is_empty() {
        return Err(invalid(format!("{field}.agents"), "must name at least one"));
    }
    if (1..agents.len()).any(|index| agents[..index].contains(&agents[index])) {
        return Err(invalid(format!("{field}.agents"), "names an agent twice"));
    }
    let set = v1::AgentSet { agents: agents.to_vec(), all: false };
    let target = Some(v1::Target { kind: Some(v1::target::Kind::Agents(set)) });
    Ok(v1::TaskSpec { target, ..task.clone() })
}
