//! Predicates on states that every client needs.

use crate::v1::TaskState;

impl TaskState {
    /// Whether a task in this state has finished: it never leaves it again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}
