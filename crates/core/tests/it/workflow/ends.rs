//! What holds at the end of a workflow.

use std::cmp::Ordering;

use super::*;

impl World {
    /// Executes everything in a random order, and cancels the workflow at some turn: with its finally-steps, or again and again,
    /// as callers do that receive no answer. Returns the states of the steps.
    pub(super) fn finish(&mut self, order: &[u32], cancels: Option<(usize, bool)>) -> Vec<StepState> {
        for turn in 0..10_000 {
            let cancels = cancels.filter(|_| !self.workflow.state.is_final());
            match cancels.map(|(at, also_finally)| (turn.cmp(&at), also_finally)) {
                Some((Ordering::Equal, true)) => self.apply(Command::CancelFinally { reason: String::new() }),
                Some((Ordering::Equal | Ordering::Greater, false)) => {
                    self.apply(Command::Cancel { reason: String::new() });
                }
                _ => {}
            }
            if self.work.is_empty() {
                break;
            }
            self.chance = order[turn % order.len()] as usize;
            let work = self.work.swap_remove(self.chance % self.work.len());
            self.run(work);
        }
        self.check_end();
        self.steps.iter().map(|step| self.workflow.state_of(step)).collect()
    }

    /// Checks that it has ended, with all that belongs to it.
    pub(super) fn check_end(&self) {
        assert!(self.workflow.state.is_final(), "{:#?} {:#?}", self.workflow, self.steps);
        assert_eq!(self.workflow.active, 0);
        self.check_left();
        self.check_compensation();
        self.check_inner();
    }
}
