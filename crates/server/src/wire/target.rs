//! Targets of tasks, from and to the wire.

use std::collections::BTreeSet;

use rota_core::target::Target;
use rota_core::{AgentName, TaskId};
use rota_proto::v1;
use tonic::Status;

use super::status::invalid;
use super::{check, names};

/// Agent of a task that names none.
const DEFAULT_AGENT: &str = "default";
const MAX_CAPABILITIES: usize = 32;
pub(crate) const MAX_AGENTS: usize = 32;

pub(crate) fn from_wire(field: &str, target: Option<&v1::Target>) -> Result<Target, Status> {
    match target.and_then(|target| target.kind.as_ref()) {
        None => {
            AgentName::new(DEFAULT_AGENT).map(Target::Agent).map_err(|bad| invalid(field, bad.to_string()))
        }
        Some(v1::target::Kind::Agent(agent)) => {
            names::agent_id(&format!("{field}.agent"), agent).map(Target::Agent)
        }
        Some(v1::target::Kind::Agents(set)) => {
            let field = format!("{field}.agents");
            if set.all {
                return Err(invalid(
                    format!("{field}.all"),
                    "is for steps of workflows: a task has one agent",
                ));
            }
            check::count(&format!("{field}.agents"), set.agents.len(), MAX_AGENTS)?;
            if set.agents.is_empty() {
                return Err(invalid(format!("{field}.agents"), "must name at least one"));
            }
            let name = |(index, agent): (usize, &String)| {
                names::agent_id(&format!("{field}.agents[{index}]"), agent)
            };
            set.agents.iter().enumerate().map(name).collect::<Result<_, _>>().map(Target::Agents)
        }
        Some(v1::target::Kind::Worker(worker)) => {
            names::worker_id(&format!("{field}.worker"), worker).map(Target::Worker)
        }
        Some(v1::target::Kind::Capabilities(set)) => {
            check::words(&format!("{field}.capabilities.capabilities"), &set.capabilities, MAX_CAPABILITIES)?;
            if set.capabilities.is_empty() {
                return Err(invalid(format!("{field}.capabilities.capabilities"), "must name at least one"));
            }
            Ok(Target::Capabilities(set.capabilities.iter().cloned().collect::<BTreeSet<_>>()))
        }
    }
}

/// Gives a task a worker of its own, if it asks for one.
pub(super) fn isolate(isolation: i32, id: TaskId, target: Target) -> Result<Target, Status> {
    let field = "task.spec.isolation";
    match v1::Isolation::try_from(isolation).map_err(|_| invalid(field, "is not a known isolation"))? {
        v1::Isolation::Unspecified | v1::Isolation::Shared => Ok(target),
        v1::Isolation::Pod => match target {
            Target::Agent(agent) => Ok(Target::Task { id, agent }),
            _ => Err(invalid(field, "POD needs an agent as the task's target")),
        },
    }
}

pub(crate) fn to_wire(target: &Target) -> v1::Target {
    let kind = match target {
        Target::Agent(agent) | Target::Task { agent, .. } => v1::target::Kind::Agent(agent.to_string()),
        Target::Agents(agents) => v1::target::Kind::Agents(v1::AgentSet {
            agents: agents.iter().map(ToString::to_string).collect(),
            all: false,
        }),
        Target::Worker(worker) => v1::target::Kind::Worker(worker.to_string()),
        Target::Capabilities(words) => v1::target::Kind::Capabilities(v1::CapabilitySet {
            capabilities: words.iter().cloned().collect(),
        }),
    };
    v1::Target { kind: Some(kind) }
}
