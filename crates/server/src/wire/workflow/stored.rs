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
    /// Rules of its expressions, which it keeps: [`rota_expressions::RULES`] of its creation. 0 in those from before the field, which
    /// have the first rules.
    #[prost(uint32, tag = "3")]
    pub(crate) rules: u32,
}

impl StoredSpec {
    /// Whether this version evaluates the expressions as the one that has created the workflow.
    pub(crate) fn has_known_rules(&self) -> bool {
        self.rules <= rota_expressions::RULES
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredStep {
    #[prost(message, optional, tag = "1")]
    pub(crate) step: Option<v1::WorkflowStep>,
    /// Steps that its expressions read, by name.
    #[prost(btree_map = "string, uint32", tag = "2")]
    pub(crate) seen: BTreeMap<String, u32>,
    /// Steps that it needs, in the order of its spec.
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) needs: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflows_of_earlier_versions_have_known_rules() {
        let of = |rules| StoredSpec { rules, ..StoredSpec::default() }.has_known_rules();
        // From before the field, of this version, and of a later one.
        assert!(of(0) && of(rota_expressions::RULES) && !of(rota_expressions::RULES + 1));
    }
}
