//! `metadata` as Kubernetes has it, as far as Rota looks at it. What a cluster adds by itself is
//! accepted and dropped, so that `kubectl get -o yaml` can be applied to a laptop.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names an object and finds it again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMeta {
    /// The object's name. A task's becomes its alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Instead of a name, for tasks: a new task at each apply, its alias beginning like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// The namespace; unset means the one the caller works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Words for finding it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Remarks for other tools; Rota does not look at them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub uid: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub resource_version: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub generation: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub creation_timestamp: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub managed_fields: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub owner_references: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub finalizers: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub deletion_timestamp: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub deletion_grace_period_seconds: Unread,
    /// A cluster's own.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub self_link: Unread,
}

/// A value that may be there and is dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread;

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}
