//! Custom resources: the specs of the manifests with Kubernetes metadata and a status, and their CustomResourceDefinitions.
//! Contains no controller code.

mod convert;
mod definition;
mod rules;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

pub use crate::agent::AgentResource as Agent;
pub use crate::schedule::ScheduleResource as Schedule;
pub use crate::status::{
    AgentStatus, ScheduleStatus, TaskPhase, TaskStatus, TaskUsage, WorkerFailure, WorkflowPhase,
    WorkflowStatus, WorkflowSteps, WorkflowTemplateStatus, condition,
};
pub use crate::task::TaskResource as Task;
pub use crate::workflow::{WorkflowResource as Workflow, WorkflowTemplateResource as WorkflowTemplate};
pub use convert::TRACEPARENT;
pub use definition::{
    definition_of_agents, definition_of_schedules, definition_of_tasks, definition_of_templates,
    definition_of_workflows, definitions, to_yaml,
};
pub use rules::{Kind, Rule, rules};

/// API group of all kinds.
pub const GROUP: &str = "rota.dev";
