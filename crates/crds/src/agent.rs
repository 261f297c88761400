//! The `Agent` manifest: a kind of worker and its pool.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runtime::Environment;
use crate::status::AgentStatus;
use crate::{
    DoneWhen, HumanDuration, Ignored, Limits, Management, ObjectMeta, OnDisconnect, Overrides, PodTemplate,
    Runtime, Usd, WhenExhausted, Workspace, WorkspaceCommand,
};

/// Kind of worker and its pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// API version; must be `rota.dev/v1alpha1`.
    pub api_version: String,
    /// Kind of the object; must be `Agent`.
    pub kind: String,
    /// Name, namespace and labels of the agent.
    pub metadata: ObjectMeta,
    /// Desired behavior of the agent and its pool.
    pub spec: AgentSpec,
    /// Written by the cluster; ignored.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub status: Ignored,
}

/// Runtime, capabilities and scaling of an agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "rota.dev",
    version = "v1alpha1",
    kind = "Agent",
    root = "AgentResource",
    doc = "Kind of worker and its pool.",
    namespaced,
    status = "AgentStatus",
    shortname = "rag",
    category = "rota",
    derive = "PartialEq",
    derive = "Default",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyWorkers"),
    printcolumn(name = "Busy", type_ = "integer", json_path = ".status.busyWorkers"),
    printcolumn(name = "Idle", type_ = "integer", json_path = ".status.idleWorkers"),
    printcolumn(name = "Queued", type_ = "integer", json_path = ".status.queuedTasks"),
    printcolumn(name = "Floor", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Ceiling", type_ = "integer", json_path = ".spec.maxReplicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSpec {
    /// Runtime that executes the tasks.
    pub runtime: Runtime,
    /// Capabilities of the workers, as free-form words. Tasks may require them instead of naming an agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// Free-form description, shown to users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub description: Option<String>,
    /// Tasks that one worker executes concurrently. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub slots: Option<i32>,
    /// Minimum number of workers. Defaults to 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: i32,
    /// Maximum number of workers. Defaults to `replicas`, but at least 1; 0 stops the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_replicas: Option<i32>,
    /// Idle workers to keep ahead of demand. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub spare_workers: Option<i32>,
    /// Idle time after which a worker above `replicas` is stopped. Defaults to 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<HumanDuration>,
    /// Time that a worker has to come back after its connection was lost, before its tasks are given to others: from 1s to 2m.
    /// Longer saves work that was nearly done; shorter moves it sooner. Defaults to the control plane's `--reconnect-grace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_grace: Option<HumanDuration>,
    /// Time for which an attempt waits for a person on its worker. Then it releases its slot until the answer, if another attempt can
    /// continue its work. Defaults to 10m; 0s for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_waiting_after: Option<HumanDuration>,
    /// Environment variables of each attempt. Those of the task, where `overrides` allows them, take precedence.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    #[schemars(schema_with = "crate::schema::environment")]
    pub environment: Environment,
    /// Limits of tasks that do not set their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_limits: Option<Limits>,
    /// Limits of the cost of all its tasks together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Workspace of tasks that do not set their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Commands that prepare the workspace of each attempt before the agent starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub setup: Vec<WorkspaceCommand>,
    /// What its attempts on a machine have in common of their set-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_cache: Option<SetupCache>,
    /// What must hold before a task of this agent succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_when: Option<DoneWhen>,
    /// Behavior of a disconnected worker whose lease has expired. Defaults to `Continue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// Who starts the workers. Defaults to `Managed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,
    /// What tasks may set besides their work. Defaults to `Limits`, and to `All` with `rota dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Overrides>,
    /// Values of Kubernetes Secrets to pass to the workers as environment variables. Not supported by `rota dev`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub secrets: Vec<AgentSecret>,
    /// Template of the worker pods. Ignored by `rota dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodTemplate>,
}

/// Limits of the cost of all tasks of an agent together, per day and month of UTC. At least one is required.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Budget {
    /// Cost in a day in US dollars, as a decimal string such as `"20.00"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_usd: Option<Usd>,
    /// Cost in a month in US dollars, as a decimal string such as `"400.00"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_usd: Option<Usd>,
    /// What becomes of new tasks while the budget is exhausted. Defaults to `Queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_exhausted: Option<WhenExhausted>,
}

/// Value of a Kubernetes Secret, passed to attempts as an environment variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSecret {
    /// Name of the environment variable.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Name of the Secret, in the namespace of the agent.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Key of the value in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Directory that attempts of an agent on a machine have in common, such as for installed packages; `ROTA_SETUP_CACHE` is its path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetupCache {
    /// Files of the workspace, such as `package-lock.json`: for each content of them there is one directory.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256)))]
    pub key_files: Vec<String>,
    /// Commands that fill the directory, before `setup`. Attempts can only read it.
    #[schemars(length(min = 1, max = 16))]
    pub commands: Vec<WorkspaceCommand>,
}
