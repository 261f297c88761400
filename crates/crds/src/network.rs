//! Network access of worker pods. A NetworkPolicy of the operator enforces it where the cluster's network plugin does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Json;

/// Network access of worker pods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodNetwork {
    /// Destinations that the pods may reach. Defaults to the operator's `worker.egress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Further destinations, such as a proxy or a git host: `egress` rules of a NetworkPolicy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow: Vec<Json>,
}

/// Destinations that worker pods may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Egress {
    /// All destinations: there is no NetworkPolicy.
    Any,
    /// All but the metadata endpoints of clouds, which give credentials of the node or its workloads.
    #[default]
    NoMetadata,
    /// DNS, the control plane and public addresses: no other pod, node or private network.
    Internet,
    /// DNS, the control plane and what `allow` lists.
    Listed,
}

impl std::str::FromStr for Egress {
    type Err = serde::de::value::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::deserialize(serde::de::value::StrDeserializer::new(text))
    }
}
