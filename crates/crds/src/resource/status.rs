//! What a cluster shows of agents and tasks. Conditions are the truth; a phase only sums them up.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{Time, Usd};

/// Types of conditions.
pub mod condition {
    /// Of an agent: its floor of workers is connected.
    pub const READY: &str = "Ready";
    /// Of an agent: the spec is valid and the control plane has taken it.
    pub const ACCEPTED: &str = "Accepted";
    /// Of an agent: pods are being started, drained or replaced.
    pub const PROGRESSING: &str = "Progressing";
    /// Of a task: it has succeeded.
    pub const COMPLETE: &str = "Complete";
    /// Of a task: it has ended otherwise.
    pub const FAILED: &str = "Failed";
    /// Of a task: a worker works on it.
    pub const RUNNING: &str = "Running";
}

/// How an agent stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// How it stands: `Ready`, `Accepted`, `Progressing`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Pods that there are.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Finds its pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Workers that are connected.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_workers: i32,
    /// Workers with at least one task.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub busy_workers: i32,
    /// Workers without.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub idle_workers: i32,
    /// Tasks that wait for a slot.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub queued_tasks: i64,
    /// Tasks on a worker.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub running_tasks: i64,
    /// A sentence for people, for example why no worker can start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// How a task stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// How it stands: `Running`, `Complete`, `Failed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// The conditions in a word.
    #[serde(default)]
    pub phase: TaskPhase,
    /// A word for programs: why it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Its id in the control plane, once it has been taken there. It is never handed in again after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub task_id: Option<String>,
    /// Number of the current or last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub attempt: Option<i32>,
    /// The worker that has it, or had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub worker: Option<String>,
    /// W3C trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub trace_id: Option<String>,
    /// When its first attempt was taken by a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What all attempts used together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TaskUsage>,
    /// The beginning of its result, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub result_preview: Option<String>,
}

/// What a task used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskUsage {
    /// Tokens in, cached ones included.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub input_tokens: i64,
    /// Tokens out.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub output_tokens: i64,
    /// Dollars, as a decimal string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
}

/// A task's conditions in a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaskPhase {
    /// It waits for something.
    #[default]
    Pending,
    /// It waits for a free slot.
    Queued,
    /// A worker works on it.
    Running,
    /// It runs, and waits for a person's answer.
    InputRequired,
    /// It is done.
    Succeeded,
    /// It ended without a result.
    Failed,
    /// It ended because somebody asked for it.
    Cancelled,
    /// The control plane knows it no longer; it is not run a second time.
    OutcomeUnknown,
}

/// `metav1.Condition`s by type, with its own bounds.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "maxLength": 316, "description": "What it is about." },
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds."
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The generation that it is about."
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "maxLength": 64,
                    "description": "When `status` last changed."
                },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "A word for programs: why it is so."
                },
                "message": {
                    "type": "string",
                    "maxLength": 4096,
                    "description": "A sentence for people."
                }
            }
        }
    })
}
