//! What is compensated after any order of completion, and in which order.

use rota_core::workflow::{Resolution, Resolved};

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
        let cancelled = self.workflow.outcome == Some(Outcome::Cancelled) && !self.is_cut;
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

    /// Resolves the compensation that has failed, which does not fail again.
    fn resolve(&mut self, resolution: Resolution) {
        let has_failed = |step: &Step| step.compensation == Some(StepState::Failed);
        let index = self.steps.iter().position(has_failed).unwrap();
        self.graph.steps[index].compensation_fails = false;
        if resolution == Resolution::Retry {
            self.compensated.pop();
        }
        let failure = self.steps[index].compensation_failures();
        let [by, by_subject, note] = ["ada", "person-7", ""].map(str::to_owned);
        let resolved = Resolved { failure, resolution, by, by_subject, note, at: self.now };
        self.step(index, StepCommand::Resolve(resolved.clone()));
        let before = (self.workflow.clone(), self.steps[index].clone());
        self.step(index, StepCommand::Resolve(resolved));
        assert_eq!(before, (self.workflow.clone(), self.steps[index].clone()), "a repeated decision");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn resolved_compensations_continue_in_order(graph in graph(), order in prop::collection::vec(any::<u32>(), 50), choices in prop::collection::vec(0..3usize, 8)) {
        let mut world = World::new(Graph { policy: Policy::Compensate, ..graph });
        world.finish(&order, None);
        let mut resolved = 0;
        while world.workflow.state == State::CompensationFailed {
            let choice = choices[resolved as usize % choices.len()];
            world.resolve([Resolution::Retry, Resolution::Done, Resolution::Skip][choice]);
            world.finish(&order, None);
            resolved += 1;
            prop_assert_eq!(world.workflow.resolved, resolved);
        }
        prop_assert!(resolved == 0 || world.workflow.state == State::Failed);
        let skipped = world.steps.iter().any(|step| step.compensation == Some(StepState::Skipped));
        prop_assert!(!skipped || choices.contains(&2));
    }
}
