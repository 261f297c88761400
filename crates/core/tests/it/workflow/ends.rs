//! What holds at the end of a workflow.

use super::*;

impl World {
    /// Checks that it has ended, with all that belongs to it.
    pub(super) fn check_end(&self) {
        assert!(self.workflow.state.is_final(), "{:#?} {:#?}", self.workflow, self.steps);
        assert_eq!(self.workflow.active, 0);
        self.check_left();
        self.check_compensation();
        self.check_inner();
    }
}
