//! Steps that are added to a workflow that runs. They are behind all others, finally-steps included, whose indexes stay.

use std::ops::Range;

use super::apply::Move;
use super::{Change, Kind, Rejected, State, Step, StepState, Workflow};
use crate::Timestamp;

impl Workflow {
    /// Number of its steps, with finally-steps and added ones.
    pub fn total(&self) -> u32 {
        self.main.saturating_add(self.finals).saturating_add(self.added)
    }

    /// Returns the indexes of the finally-steps.
    pub fn finals(&self) -> Range<u32> {
        self.main..self.main.saturating_add(self.finals)
    }

    /// Whether the step with this index is a finally-step.
    pub fn is_finally(&self, index: u32) -> bool {
        self.finals().contains(&index)
    }

    /// Whether a stop of the workflow ends the step with this index, and its tasks: finally-steps are spared unless they were
    /// cancelled, too. The compensation of a step is never cancelled.
    pub fn is_stopped(&self, index: u32) -> bool {
        self.finals_halted || !self.is_finally(index)
    }

    /// Returns the index of a step in the order of the specification, in which added steps are before finally-steps.
    pub fn index_of(&self, position: u32) -> u32 {
        if position < self.main { position } else { position.saturating_add(self.finals) }
    }

    /// Adds a step, whose open needs are counted. It starts, or is held, if there are none.
    pub fn add(&mut self, step: &mut Step, now: Timestamp) -> Result<Change, Rejected> {
        match self.state {
            State::Running => {}
            state if state.is_final() => return Err(Rejected::Final(state)),
            state => return Err(Rejected::Phase(state)),
        }
        step.index = self.total();
        self.added += 1;
        self.main_open += 1;
        self.nests.extend((step.kind == Kind::Workflow).then_some(step.index));
        let mut added = Move { workflow: self, step, now, out: Change::default() };
        match (added.step.needs, added.step.doomed) {
            (0, true) => added.end(StepState::Skipped, "a step that it needs has not succeeded"),
            (0, false) => added.workflow.start_or_hold(added.step, &mut added.out, now),
            _ => {}
        }
        Ok(added.out)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Namespace, WorkflowId};

    #[test]
    fn stops_spare_finally_steps() {
        let id = WorkflowId(Uuid::from_u128(1));
        let mut workflow = Workflow::new(id, Namespace::new("n").unwrap());
        (workflow.main, workflow.finals, workflow.added) = (2, 1, 1);
        let stopped = |workflow: &Workflow| [0, 1, 2, 3].map(|index| workflow.is_stopped(index));
        assert_eq!((workflow.finals(), workflow.total()), (2..3, 4));
        assert_eq!(stopped(&workflow), [true, true, false, true]);
        workflow.finals_halted = true;
        assert_eq!(stopped(&workflow), [true; 4]);
    }
}
