//! The `Schedule` manifest: a task or a workflow that is created at recurring times.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::ScheduleStatus;
use crate::{
    HumanDuration, Ignored, ObjectMeta, ScheduleCatchUp, ScheduleConcurrency, TaskSpec, WorkflowSpec,
};

/// Tasks or workflows that are created at recurring times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// API version; must be `rota.dev/v1alpha1`.
    pub api_version: String,
    /// Kind of the object; must be `Schedule`.
    pub kind: String,
    /// Name, and labels, which the tasks and workflows of the schedule get as well.
    pub metadata: ObjectMeta,
    /// Task or workflow that runs, and the times.
    pub spec: ScheduleSpec,
    /// Written by the cluster; ignored.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub status: Ignored,
}

/// Task or workflow that runs, and the times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "rota.dev",
    version = "v1alpha1",
    kind = "Schedule",
    root = "ScheduleResource",
    doc = "Tasks or workflows that are created at recurring times.",
    namespaced,
    status = "ScheduleStatus",
    shortname = "rsc",
    category = "rota",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Cron", type_ = "string", json_path = ".spec.cron"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextRunTime"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.active"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastRunTime"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.lastRunState"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.timeZone", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleSpec {
    /// Cron expression: minute, hour, day of the month, month, day of the week; with six fields, the first is the second.
    #[schemars(length(min = 1, max = 256))]
    pub cron: String,
    /// Time zone of the expression, such as `Europe/Berlin`. Defaults to UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// Longest delay that is added to each time, different for each. Defaults to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<HumanDuration>,
    /// Longest delay after a time by which its run starts; later the time is skipped. Defaults to no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_deadline: Option<HumanDuration>,
    /// Action at a time at which earlier runs have not ended. Defaults to `Allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ScheduleConcurrency>,
    /// Action after times that have passed while nothing could run. Defaults to `Latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<ScheduleCatchUp>,
    /// Whether no time starts a run. Unset: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Ended runs that are kept. Unset: 10 of each kind are shown, and their tasks and workflows are kept as others are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<ScheduleHistory>,
    /// Task that each run creates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskSpec>,
    /// Workflow that each run creates, in place of a task: a template with parameters, or steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowSpec>,
}

/// Ended runs that are kept. Tasks and workflows of older runs are removed; a task stays if another one needs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleHistory {
    /// Number of runs that succeeded.
    #[schemars(range(min = 0, max = 100))]
    pub succeeded: i32,
    /// Number of all other runs.
    #[schemars(range(min = 0, max = 100))]
    pub failed: i32,
}
