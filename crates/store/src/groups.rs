//! Rows of concurrency groups: which workflows and steps hold them, or wait for them.

use rota_core::Namespace;
use serde::{Deserialize, Serialize};

use crate::StepKey;

/// Concurrency group of the workflows, or of the steps, of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKey {
    pub namespace: Namespace,
    pub of_steps: bool,
    pub name: String,
}

impl GroupKey {
    /// Returns the group of a stored name.
    pub fn from_stored(namespace: &str, name: &str) -> Option<Self> {
        let (kind, name) = name.split_once('/')?;
        let namespace = Namespace::new(namespace).ok()?;
        Some(Self { namespace, of_steps: kind == "step", name: name.to_owned() })
    }

    /// Returns the name under which a store has its members.
    pub fn stored_name(&self) -> String {
        let kind = if self.of_steps { "step" } else { "workflow" };
        format!("{kind}/{}", self.name)
    }
}

/// Index of a member of a group that is a workflow.
pub const WORKFLOW_MEMBER: u32 = u32::MAX;
/// Members of a group that wait and that one load reads, first those that were created first.
pub const GROUP_WINDOW: usize = 64;

/// Step or workflow that holds a group, or waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMember {
    pub member: StepKey,
    pub holds: bool,
    pub limit: u32,
    /// Revision with which it joined.
    pub joined: u64,
}
