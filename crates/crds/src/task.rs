//! The `Task` manifest: one unit of work.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runtime::Environment;
use crate::status::TaskStatus;
use crate::{
    DesiredState, DoneWhen, HumanDuration, Ignored, Isolation, Json, Limits, ObjectMeta, OnDependencyFailure,
    PodOverrides, Priority, RetryPolicy, Runtime, Time, Workspace, WorkspaceCommand,
};

/// Unit of work, executed by one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Task {
    /// API version; must be `rota.dev/v1alpha1`.
    pub api_version: String,
    /// Kind of the object; must be `Task`.
    pub kind: String,
    /// Name, which becomes the alias of the task, and labels.
    pub metadata: ObjectMeta,
    /// Work to do, agent, dependencies and limits.
    pub spec: TaskSpec,
    /// Written by the cluster; ignored.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub status: Ignored,
}

/// Work to do, agent, dependencies and limits.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "rota.dev",
    version = "v1alpha1",
    kind = "Task",
    root = "TaskResource",
    doc = "Unit of work, executed by a worker of an agent.",
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
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agent", priority = 1),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress", priority = 1),
    printcolumn(name = "Trace", type_ = "string", json_path = ".status.traceId", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskSpec {
    /// Title, shown to users. Defaults to the beginning of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub title: Option<String>,
    /// Prompt that the agent works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub prompt: Option<String>,
    /// Kind of the task, whose target, limits, retry policy and result schema it gets where it sets none: `auto`, `code`, `review`,
    /// `test`, `docs`, `research`, `data`, `investigation`, `bug_fix`, or one of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z][a-z0-9_-]*$"))]
    pub kind: Option<String>,
    /// Structured input of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// Agent whose workers may execute the task. At most one of `agent`, `agents`, `worker` and `capabilities` may be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub agent: Option<String>,
    /// Agents of which any may execute the task: the first with a free worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub agents: Vec<String>,
    /// Worker that must execute the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub worker: Option<String>,
    /// Capabilities that a worker must have to execute the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// Tasks that must finish first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["task"]))]
    pub depends_on: Vec<Dependency>,
    /// Priority from 0 to 10, or LOW (2), NORMAL (5), HIGH (8), URGENT (10). Defaults to NORMAL. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Desired state. Defaults to `Run`. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<DesiredState>,
    /// Limits of time, turns and cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Retry policy for failed attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Earliest time at which the task starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Environment variables of the attempt, which take precedence over those of the agent.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    #[schemars(schema_with = "crate::schema::environment")]
    pub environment: Environment,
    /// Secret environment variables of the attempt. Not allowed on Kubernetes, where agents refer to Secrets.
    #[serde(default, skip_serializing)]
    #[schemars(schema_with = "crate::schema::environment")]
    pub secrets: Environment,
    /// Workspace. Defaults to that of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Commands that prepare the workspace before the agent starts, after those of the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub setup: Vec<WorkspaceCommand>,
    /// What must hold before the task succeeds, besides what its agent asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_when: Option<DoneWhen>,
    /// JSON Schema of the data of the result. An attempt with other data fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_schema: Option<Json>,
    /// Overrides of the agent's runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Owner of the task, shown to users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub owner: Option<String>,
    /// Id of the parent task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub parent_task: Option<String>,
    /// Reject the task if its agent or a dependency does not exist, instead of waiting.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// Isolation from other tasks. Defaults to `Shared`. Ignored by `rota dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Overrides of the agent's pod template. Requires isolation `Pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
    /// Time after its end at which the task is removed. On Kubernetes the resource is, and the record in the control plane is
    /// kept longer. Unset: never. Mutable on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<HumanDuration>,
    /// Id or name of a task whose conversation and files this one continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub continue_from: Option<String>,
    /// Thread of the task. The tasks of a thread run one after the other, each continuing the conversation of those before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub thread: Option<String>,
    /// Continue a task that may still run, from its newest checkpoint. Requires `continueFrom`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fork: bool,
    /// Secrets of the agent that the attempt receives. Unset: all; an empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub secret_names: Option<Vec<String>>,
}

/// Task that must finish first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// Id or name of the task.
    #[schemars(length(min = 1, max = 63))]
    pub task: String,
    /// Effect if the task does not succeed. Defaults to `Fail`.
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
