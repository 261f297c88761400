//! Agents and tasks as a cluster keeps them: the same specs as manifests have, with Kubernetes'
//! metadata and a status; and the definitions that a cluster needs to take them. No controller code.

mod convert;
mod definition;
mod rules;
mod status;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

pub use crate::agent::AgentResource as Agent;
pub use crate::task::TaskResource as Task;
pub use convert::TRACEPARENT;
pub use definition::{definition_of_agents, definition_of_tasks, definitions, to_yaml};
pub use rules::{Kind, Rule, rules};
pub use status::{AgentStatus, TaskPhase, TaskStatus, TaskUsage, condition};

/// Group of all kinds.
pub const GROUP: &str = "rota.dev";
