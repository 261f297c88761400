//! `metadata` of manifests. Fields that a cluster adds are accepted and ignored, so that the output of `kubectl get -o
//! yaml` can be applied with `rota apply`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Metadata of an object, as in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMeta {
    /// Name of the object. That of a task becomes its alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Prefix of a generated name, for tasks only: each apply creates a new task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Namespace. Defaults to that of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels, by which objects are selected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of other tools; ignored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub uid: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub resource_version: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub generation: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub creation_timestamp: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub managed_fields: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub owner_references: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub finalizers: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub deletion_timestamp: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub deletion_grace_period_seconds: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub self_link: Ignored,
}

/// Value that is accepted and ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}
