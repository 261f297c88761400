//! What is compensated after any order of completion, and in which order.

use super::*;

impl World {
    pub(super) fn has_effects(&self, index: usize) -> bool {
        let step = &self.steps[index];
        let of_items = self.done.get(&(index, step.round)).is_some_and(|items| !items.is_empty());
        match step.state {
            StepState::Succeeded => !step.compensates_each || of_items,
            StepState::Failed | StepState::Cancelled => step.compensates_each && of_items,
            _ => false,
        }
    }

    /// Returns the items of a step for which its compensation runs, in this order.
    pub(super) fn compensable(&self, index: usize) -> Vec<u32> {
        match (self.steps[index].compensates_each, self.done.get(&(index, self.steps[index].round))) {
            (false, _) => vec![0],
            (true, items) => items.into_iter().flatten().rev().copied().collect(),
        }
    }

    pub(super) fn check_compensation(&self) {
        let is_meant = |step: &&usize| self.steps[**step].compensates && !self.steps[**step].finally;
        let of_step = |step: usize| self.compensable(step).into_iter().map(move |item| (step, item));
        let meant = self.completed.iter().rev().filter(is_meant).copied();
        let expected: Vec<_> = meant.flat_map(of_step).collect();
        assert!(expected.starts_with(&self.compensated), "{expected:?} {:?}", self.compensated);
        let failed =
            |step: &Step| !step.finally && matches!(step.state, StepState::Failed | StepState::Cancelled);
        let cancelled = self.workflow.outcome == Some(Outcome::Cancelled) && !self.workflow.finals_halted;
        let fails = (cancelled || self.steps.iter().any(failed)) && self.graph.policy == Policy::Compensate;
        let failed = self
            .compensated
            .iter()
            .any(|&(step, item)| item == 0 && self.graph.steps[step].compensation_fails);
        assert_eq!(self.workflow.state == State::CompensationFailed, failed);
        if fails && !failed {
            assert_eq!(self.compensated, expected);
        }
        assert!(fails || self.compensated.is_empty());
    }
}
