//! Predicates on states that every client needs.

use crate::v1::{TaskState, WorkflowState};

impl TaskState {
    /// Whether a task in this state has finished: it never leaves it again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl WorkflowState {
    /// Whether a workflow in this state has ended: it never leaves it again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::CompensationFailed)
    }
}
