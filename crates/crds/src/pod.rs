//! Pod template of an agent, and the overrides for a task with a pod of its own. Kubernetes' own types are kept verbatim;
//! `validate` checks them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HumanDuration, Json, PodNetwork};

/// Template of an agent's worker pods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodTemplate {
    /// Image of the worker container; the program `rota` is added to it, unless `command` is set. Defaults to the operator's
    /// `worker.image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Pull policy of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets for pulling the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub image_pull_secrets: Vec<SecretReference>,
    /// Program of the image with its first arguments, such as `[rota]` for a `rota` of its own. Defaults to the operator's
    /// version, which is copied into the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// `resources` of the worker container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Json>,
    /// `nodeSelector` of the worker pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// `tolerations` of the worker pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Json>,
    /// `affinity` of the worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Json>,
    /// Service account of the pods. The token of the account is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// `runtimeClassName` of the worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// `priorityClassName` of the worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Additional labels of the worker pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the worker pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Additional `volumes` of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub volumes: Vec<Json>,
    /// Additional `volumeMounts` of the worker container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub volume_mounts: Vec<Json>,
    /// Template that is merged into the pod by Kubernetes' strategic rules: `metadata` with labels and annotations, and
    /// `spec`. Containers, volumes and variables are merged by name; the container of the worker is `worker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Json>,
    /// Network access of the worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<PodNetwork>,
    /// Time for a deleted pod to finish its tasks. Defaults to 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period: Option<HumanDuration>,
}

/// Overrides of the agent's pod template. Maps and lists are merged, other fields replaced. What gives a pod rights, such as
/// its service account, is the agent's alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodOverrides {
    /// `resources` of the worker container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Json>,
    /// Additional `nodeSelector` labels of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Additional `tolerations` of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Json>,
    /// Additional `volumes` of the pod: `emptyDir`, `downwardAPI`, or `ephemeral` without the data of another volume. Others,
    /// such as claims and ConfigMaps, belong in the `pod` of the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub volumes: Vec<Json>,
    /// Additional `volumeMounts` of the worker container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub volume_mounts: Vec<Json>,
}

/// Pull policy of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// Pull the image at each start.
    Always,
    /// Pull if the node does not have the image.
    IfNotPresent,
    /// Never pull; the node must have the image.
    Never,
}

impl ImagePullPolicy {
    /// Returns the name in Kubernetes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Reference to a Secret by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretReference {
    /// Name of the referenced Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
