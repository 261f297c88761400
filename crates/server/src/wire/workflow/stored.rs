//! Specs as they are stored, with the indexes of the steps that their expressions read.

use std::collections::BTreeMap;

use rota_proto::v1;

/// Spec of a workflow without its steps.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredSpec {
    #[prost(message, optional, tag = "1")]
    pub(crate) spec: Option<v1::WorkflowSpec>,
    /// Steps that its outputs read, by name.
    #[prost(btree_map = "string, uint32", tag = "2")]
    pub(crate) seen: BTreeMap<String, u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredStep {
    #[prost(message, optional, tag = "1")]
    pub(crate) step: Option<v1::WorkflowStep>,
    /// Steps that its expressions read, by name.
    #[prost(btree_map = "string, uint32", tag = "2")]
    pub(crate) seen: BTreeMap<String, u32>,
}
