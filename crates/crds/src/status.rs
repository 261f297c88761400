//! Status of agents and tasks. Conditions are authoritative; the phase is only a summary.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{Time, Usd};

/// Condition types of agents and tasks.
pub mod condition {
    /// Agent: at least `replicas` workers are connected.
    pub const READY: &str = "Ready";
    /// Agent: the spec is valid and accepted by the control plane.
    pub const ACCEPTED: &str = "Accepted";
    /// Agent: as far as is known, more workers can be started.
    pub const ABLE_TO_SCALE: &str = "AbleToScale";
    /// Agent: pods are being started, drained or replaced.
    pub const PROGRESSING: &str = "Progressing";
    /// Agent: attempts are isolated from their workers and from each other.
    pub const ISOLATED: &str = "Isolated";
    /// Task: has finished with success.
    pub const COMPLETE: &str = "Complete";
    /// Task: has finished without success.
    pub const FAILED: &str = "Failed";
    /// Task: running on a worker.
    pub const RUNNING: &str = "Running";
    /// Task, workflow: stays beyond its time to live, since a tool would create it again.
    pub const RETAINED: &str = "Retained";
}

/// Observed state of an agent and its pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Conditions of the types `Ready`, `Accepted`, `AbleToScale`, `Progressing` and, while workers are connected, `Isolated`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Generation that the status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Number of existing worker pods.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Label selector of the pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Number of workers that are connected.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_workers: i32,
    /// Number of workers with at least one task.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub busy_workers: i32,
    /// Number of workers without a task.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub idle_workers: i32,
    /// Number of tasks that wait for a slot.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub queued_tasks: i64,
    /// Number of tasks on workers.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub running_tasks: i64,
    /// Explanation, for example why no worker can start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Last failure of a worker, for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<WorkerFailure>,
    /// Spec that was last accepted, as JSON. The pool is run by it while the agent's own is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub accepted_spec: Option<String>,
}

/// How a worker of an agent failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerFailure {
    /// Time at which the failure was observed.
    pub time: Time,
    /// Pod of the worker. It is kept for ten minutes if it is the last that failed.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// CamelCase reason, for example `OOMKilled`.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Explanation, with the last lines of the worker's log.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Observed state of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// Conditions of the types `Running`, `Complete`, `Failed` and, beyond its time to live while a tool would create it again, `Retained`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Generation that the status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Summary of the conditions, for users.
    #[serde(default)]
    pub phase: TaskPhase,
    /// CamelCase reason of the phase, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// Explanation of the phase, for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Id in the control plane, once the task was accepted. An accepted task is never submitted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub task_id: Option<String>,
    /// Number of the current or last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub attempt: Option<i32>,
    /// Worker of the current or last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub worker: Option<String>,
    /// W3C trace id of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub trace_id: Option<String>,
    /// Time at which the first attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time at which the task finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Total usage of all attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TaskUsage>,
    /// Completed fraction and current step when the status was last written, such as `33% 2/3: Write the parser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub progress: Option<String>,
    /// Beginning of the result, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub result_preview: Option<String>,
}

/// Tokens and money used by a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskUsage {
    /// Input tokens, including cached ones.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub input_tokens: i64,
    /// Output tokens of all attempts.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub output_tokens: i64,
    /// Cost in US dollars, as a decimal string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
}

/// Summary of a task's conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaskPhase {
    /// Waits for a dependency, a time, a retry or an agent, or is suspended.
    #[default]
    Pending,
    /// Waits for a free slot.
    Queued,
    /// Runs on a worker of its agent.
    Running,
    /// Waits for the answer of a user.
    InputRequired,
    /// Finished with success and a result.
    Succeeded,
    /// Finished with a failure after its last attempt.
    Failed,
    /// Cancelled by a user or a dependency.
    Cancelled,
    /// The control plane no longer has a record of the task; the task is not run again.
    OutcomeUnknown,
}

/// Observed state of a workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// Conditions of the types `Running`, `Complete`, `Failed` and, beyond its time to live while a tool would create it again, `Retained`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Generation that the status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Summary of the conditions, for users.
    #[serde(default)]
    pub phase: WorkflowPhase,
    /// CamelCase reason of the phase, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// What has failed, or whom the workflow waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Id in the control plane, once the workflow was accepted. An accepted workflow is never submitted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub workflow_id: Option<String>,
    /// Ended steps and all steps, such as `3/7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// Number of steps in each state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<WorkflowSteps>,
    /// Name of the step that failed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub failed_step: Option<String>,
    /// Time at which the control plane created the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time at which the workflow ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// Number of steps in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowSteps {
    /// Number of steps in all states.
    #[schemars(range(min = 0))]
    pub total: i32,
    /// Steps that run, or are about to.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub running: i32,
    /// Steps that ended with success.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub succeeded: i32,
    /// Steps that ended with a failure.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub failed: i32,
    /// Steps that were skipped or cancelled.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub skipped: i32,
}

/// Summary of a workflow's conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkflowPhase {
    /// Not accepted by the control plane yet.
    #[default]
    Pending,
    /// Runs its steps, or waits for a person, a time or a signal.
    Running,
    /// Starts no further step until it is resumed.
    Paused,
    /// Starts nothing else, since a step has failed or it was cancelled.
    Stopping,
    /// Reverses the effects of steps that have succeeded.
    Compensating,
    /// Runs the steps that follow whatever the outcome.
    Finalizing,
    /// Ended with all steps succeeded or skipped by their conditions.
    Succeeded,
    /// Ended after a failed step, or out of time.
    Failed,
    /// Cancelled by a user or its resource.
    Cancelled,
    /// Ended with a compensation that failed: a person must look at it.
    CompensationFailed,
    /// The control plane no longer has a record of the workflow; it is not run again.
    OutcomeUnknown,
}

/// Observed state of a template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowTemplateStatus {
    /// Conditions of the type `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Generation that the status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Explanation, for example why the template is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Version of the template in the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub version: Option<i64>,
}

/// Observed state of a schedule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// Conditions of the type `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Generation that the status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Explanation, for example why the schedule is refused, or the last run was not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Number of runs that have not ended.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub active: i32,
    /// Time of the next run, with its jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_time: Option<Time>,
    /// Time that the last run is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_time: Option<Time>,
    /// State of the last run, such as `Running`, `Succeeded` or `NotStarted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_run_state: Option<String>,
    /// Id of the task or workflow of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub last_run_id: Option<String>,
}

/// Schema of `metav1.Condition`s by type, with their limits.
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
                "type": { "type": "string", "maxLength": 316, "description": "Type of the condition." },
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Status of the condition."
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "Generation that the condition refers to."
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "maxLength": 64,
                    "description": "Time at which `status` last changed."
                },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "CamelCase reason of the status, for programs."
                },
                "message": {
                    "type": "string",
                    "maxLength": 4096,
                    "description": "Explanation of the status, for users."
                }
            }
        }
    })
}
