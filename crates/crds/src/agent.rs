//! The `Agent` manifest: a kind of worker, and the pool of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runtime::Environment;
use crate::{Limits, Management, ObjectMeta, OnDisconnect, Runtime, Span, Unread, Workspace};

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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSpec {
    /// How its workers do tasks.
    pub runtime: Runtime,
    /// What it can do: free words; tasks may ask for them instead of an agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// A line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tasks that one worker does at a time. Unset means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<i32>,
    /// Workers that always run.
    #[serde(default)]
    pub replicas: i32,
    /// Most workers that demand may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
    /// Idle workers kept ahead of demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_workers: Option<i32>,
    /// How long a worker beyond the floor stays idle before it is stopped. Unset means 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// Environment of each attempt; a task's own comes on top.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
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
}
