//! The `Task` manifest: one unit of work.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::TaskStatus;
use crate::runtime::Environment;
use crate::{
    DesiredState, Isolation, Json, Limits, ObjectMeta, OnDependencyFailure, PodOverrides, Priority,
    RetryPolicy, Runtime, Span, Time, Unread, Workspace,
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
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "rota.dev",
    version = "v1alpha1",
    kind = "Task",
    root = "TaskResource",
    doc = "One unit of work, as a cluster keeps it.",
    namespaced,
    status = "TaskStatus",
    shortname = "rtk",
    category = "rota",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Worker", type_ = "string", json_path = ".status.worker"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt"),
    printcolumn(name = "Cost", type_ = "string", json_path = ".status.usage.costUsd"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1),
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agent", priority = 1),
    printcolumn(name = "Trace", type_ = "string", json_path = ".status.traceId", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskSpec {
    /// A line for people; unset means the prompt's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub title: Option<String>,
    /// What an agent is asked to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub prompt: Option<String>,
    /// Structured parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// Workers of this agent may do it. At most one of `agent`, `worker`, `capabilities`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub agent: Option<String>,
    /// This one worker may do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub worker: Option<String>,
    /// Any worker that has all of these may do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// Tasks that must end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["task"]))]
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
    #[schemars(schema_with = "crate::schema::environment")]
    pub environment: Environment,
    /// Secret environment of the attempt. On laptops only: on a cluster an agent names Secrets.
    #[serde(default, skip_serializing)]
    #[schemars(schema_with = "crate::schema::environment")]
    pub secrets: Environment,
    /// Where it works; unset means the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Changes to the agent's runtime for this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Whose task it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub owner: Option<String>,
    /// The task that this one is a part of: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub parent_task: Option<String>,
    /// Refuse the task when its agent or a dependency does not exist, instead of waiting for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// Whether it shares a worker with other tasks. Unset means `Shared`. On a laptop it means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// What its pod has instead of what its agent's pods have. Only with isolation `Pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
    /// How long the resource stays after its end; the record in the control plane stays longer. Unset means
    /// for ever. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Span>,
    /// Which of its agent's secrets the attempt sees. Unset means all, an empty list none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub secret_names: Option<Vec<String>>,
}

/// A task that must end first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// Its id, or its manifest's name.
    #[schemars(length(min = 1, max = 63))]
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
