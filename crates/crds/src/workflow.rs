//! The `Workflow` and `WorkflowTemplate` manifests. Steps have the fields of the API, as in files of `rota workflow run`: one
//! notation for the same thing in files, templates and resources.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::status::{WorkflowStatus, WorkflowTemplateStatus};
use crate::{DesiredState, HumanDuration, Ignored, Json, ObjectMeta, Usd};

/// Steps of a `Workflow`: more than these are a template, which a workflow names.
pub(crate) const MAX_INLINE_STEPS: usize = 200;

/// Graph of steps, each of which runs tasks, asks a person, or waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workflow {
    /// API version; must be `rota.dev/v1alpha1`.
    pub api_version: String,
    /// Kind of the object; must be `Workflow`.
    pub kind: String,
    /// Name, which becomes the alias of the workflow, and labels, which its tasks have as well.
    pub metadata: ObjectMeta,
    /// Steps, or a template with parameters.
    pub spec: WorkflowSpec,
    /// Written by the cluster; ignored.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub status: Ignored,
}

/// Steps, or a template with parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "rota.dev",
    version = "v1alpha1",
    kind = "Workflow",
    root = "WorkflowResource",
    doc = "Graph of steps, each of which runs tasks, asks a person, or waits.",
    namespaced,
    status = "WorkflowStatus",
    shortname = "rwf",
    category = "rota",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Steps", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Template", type_ = "string", json_path = ".spec.template", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowSpec {
    /// Template of the namespace in place of steps. The workflow continues with the version that is the newest at its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub template: Option<String>,
    /// Parameters of the template, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Json>,
    /// Title of the workflow, shown to users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub title: Option<String>,
    /// Owner of the workflow and of its tasks, for filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub owner: Option<String>,
    /// Inputs, which expressions read as `inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Json>,
    /// JSON Schema that the inputs must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs_schema: Option<Json>,
    /// Steps, with the fields of `WorkflowStep` of the API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub steps: Vec<Json>,
    /// Steps that run after all others, whatever the outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub finally: Vec<Json>,
    /// Steps that may run at the same time. Defaults to no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_parallel: Option<i32>,
    /// Group of workflows of which only some run at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Action if a step fails, such as `ON_STEP_FAILURE_COMPENSATE`. Defaults to `ON_STEP_FAILURE_STOP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub on_failure: Option<String>,
    /// Time from the creation to the end, without finally-steps and compensation. Defaults to no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Cost of all tasks at which the workflow fails, in US dollars. Defaults to no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<Usd>,
    /// Outputs by name: each an expression or a text with expressions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "outputs")]
    pub outputs: BTreeMap<String, String>,
    /// JSON Schema that the outputs must match, together as an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs_schema: Option<Json>,
    /// Whether the workflow runs, starts no further steps (`Suspended`), or is cancelled. Unset: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<DesiredState>,
    /// Time after the end of the workflow after which it is removed: on Kubernetes the resource, else the workflow with its tasks.
    /// Defaults to the retention of the control plane; resources are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<HumanDuration>,
}

/// Group of workflows of which only some run at the same time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Concurrency {
    /// Name of the group, with expressions that read the inputs.
    #[schemars(length(min = 1, max = 4096))]
    pub group: String,
    /// Workflows of the group that may run at the same time. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 256))]
    pub limit: Option<i32>,
    /// Action if as many run: `WHEN_FULL_QUEUE` waits, `WHEN_FULL_REPLACE` cancels them. Defaults to `WHEN_FULL_QUEUE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub when_full: Option<String>,
}

fn outputs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": { "type": "string", "maxLength": 4096 },
        "maxProperties": 64
    })
}

/// Workflow with parameters, in versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowTemplate {
    /// API version; must be `rota.dev/v1alpha1`.
    pub api_version: String,
    /// Kind of the object; must be `WorkflowTemplate`.
    pub kind: String,
    /// Name, by which workflows refer to the template, and labels.
    pub metadata: ObjectMeta,
    /// Parameters, and the workflow that has them.
    pub spec: WorkflowTemplateSpec,
    /// Written by the cluster; ignored.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub status: Ignored,
}

/// Parameters, and the workflow that has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "rota.dev",
    version = "v1alpha1",
    kind = "WorkflowTemplate",
    root = "WorkflowTemplateResource",
    doc = "Workflow with parameters, in versions.",
    namespaced,
    status = "WorkflowTemplateStatus",
    shortname = "rwt",
    category = "rota",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Description", type_ = "string", json_path = ".spec.description", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowTemplateSpec {
    /// Description of the template, shown to users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Parameters, which are the inputs of the workflow: `name`, `description`, `schema` and `default` of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub parameters: Vec<Json>,
    /// Workflow, with the fields of `WorkflowSpec` of the API, without inputs.
    pub workflow: Json,
}
