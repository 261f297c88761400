//! The `Agent` manifest: a kind of worker, and the pool of them.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::AgentStatus;
use crate::runtime::Environment;
use crate::{Limits, Management, ObjectMeta, OnDisconnect, PodTemplate, Runtime, Span, Unread, Workspace};

/// A kind of worker, and the pool of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// `rota.dev/v1alpha1`.
    pub api_version: String,
    /// `Agent`.
    pub kind: String,
    /// Its name and labels.
    pub metadata: ObjectMeta,
    /// What it is.
    pub spec: AgentSpec,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub status: Unread,
}

/// What an agent is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "rota.dev",
    version = "v1alpha1",
    kind = "Agent",
    root = "AgentResource",
    doc = "A kind of worker, and the pool of them, as a cluster keeps it.",
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
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSpec {
    /// How its workers do tasks.
    pub runtime: Runtime,
    /// What it can do: free words; tasks may ask for them instead of an agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// A line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Tasks that one worker does at a time. Unset means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub slots: Option<i32>,
    /// Workers that always run.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: i32,
    /// Most workers that demand may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_replicas: Option<i32>,
    /// Idle workers kept ahead of demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub spare_workers: Option<i32>,
    /// How long a worker beyond the floor stays idle before it is stopped. Unset means 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// Environment of each attempt; a task's own comes on top.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    #[schemars(schema_with = "crate::schema::environment")]
    pub environment: Environment,
    /// Limits for tasks that set none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_limits: Option<Limits>,
    /// Workspace for tasks that set none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// What a cut-off worker does when its lease ends. Unset means `Continue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// Who starts workers. Unset means `Managed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,
    /// Secrets of its cluster that its workers get, each as a variable. Unset on a laptop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub secrets: Vec<AgentSecret>,
    /// What its pods look like. On a laptop it means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodTemplate>,
}

/// One value of a Secret of the cluster, as a variable of attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSecret {
    /// The variable's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// The Secret, in the agent's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
