//! The `Task` manifest: one unit of work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runtime::Environment;
use crate::{
    DesiredState, Json, Limits, ObjectMeta, OnDependencyFailure, Priority, RetryPolicy, Runtime, Time,
    Unread, Workspace,
};

/// One unit of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Task {
    /// `rota.dev/v1alpha1`.
    pub api_version: String,
    /// `Task`.
    pub kind: String,
    /// Its name (which becomes its alias) and labels.
    pub metadata: ObjectMeta,
    /// What is to be done.
    pub spec: TaskSpec,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub status: Unread,
}

/// What is to be done.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskSpec {
    /// A line for people; unset means the prompt's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What an agent is asked to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Structured parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// Workers of this agent may do it. At most one of `agent`, `worker`, `capabilities`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// This one worker may do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Any worker that has all of these may do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Tasks that must end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// From 0 to 10, or LOW, NORMAL, HIGH, URGENT. Unset means NORMAL. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What shall become of it. Unset means `Run`. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<DesiredState>,
    /// Bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When a failed attempt is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Environment of the attempt, on top of the agent's.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// Secret environment of the attempt. On laptops only: on a cluster an agent names Secrets.
    #[serde(default, skip_serializing)]
    pub secrets: Environment,
    /// Where it works; unset means the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Changes to the agent's runtime for this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Whose task it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The task that this one is a part of: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_task: Option<String>,
    /// Refuse the task when its agent or a dependency does not exist, instead of waiting for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// A task that must end first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// Its id, or its manifest's name.
    pub task: String,
    /// What happens if it does not succeed. Unset means `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnDependencyFailure>,
}

impl std::fmt::Debug for TaskSpec {
    // By way of what is serialized, which leaves secrets out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| std::fmt::Error)?;
        write!(f, "TaskSpec {json}, secrets {:?}", self.secrets.keys())
    }
}
