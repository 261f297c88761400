//! The answer of the driver to a step.

use rota_store::Action;

use crate::creation::Kept;

/// A command for a step, and what must be kept until it is committed.
pub(super) struct Next {
    pub(super) action: Action,
    pub(super) kept: Vec<Kept>,
}

impl From<Action> for Next {
    fn from(action: Action) -> Self {
        Self { action, kept: Vec::new() }
    }
}
