//! Runs that are disturbed after any command: the records are read again as a store has them, commands that were executed come again,
//! and the workflow is paused and resumed. They end as undisturbed ones do.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// Returns a record as a store has it.
fn stored<T: Serialize + DeserializeOwned>(record: &T) -> T {
    serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap()
}

impl World {
    /// Reads the records again, as after a crash, with those of one of the workflows that are steps: there may be hundreds.
    /// Consequences that are left are rows of the store, as they are here.
    fn reload(&mut self, chance: usize) {
        let workflow = Workflow { key: self.workflow.key, ..stored(&self.workflow) };
        assert_eq!(workflow, self.workflow);
        self.workflow = workflow;
        for step in &mut self.steps {
            let again = Step { workflow: step.workflow, index: step.index, ..stored(step) };
            assert_eq!(again, *step);
            *step = again;
        }
        let count = self.inner.len().max(1);
        if let Some(inner) = self.inner.get_mut(chance % count) {
            inner.world.reload(chance / count);
        }
    }

    /// Repeats a command of the driver, whose answer was lost: it changes nothing.
    fn replay(&mut self, chance: usize) {
        let Some((index, command)) = self.executed.get(chance % self.executed.len().max(1)).cloned() else {
            return;
        };
        let before = (self.workflow.clone(), self.steps[index].clone());
        let again = self.workflow.apply_to(&mut self.steps[index], command.clone(), self.now);
        assert!(again.is_err(), "{command:?} was executed twice");
        assert_eq!(before, (self.workflow.clone(), self.steps[index].clone()));
    }

    fn disturb(&mut self, chance: usize) {
        match chance % 8 {
            0 if !self.workflow.is_paused() => self.pause(),
            1 | 2 if self.workflow.is_paused() => self.resume(),
            3 | 4 => self.replay(chance / 8),
            5 | 6 => self.reload(chance / 8),
            _ => {}
        }
    }

    /// Executes everything in a random order, and disturbs it after each command, as long as `disturbances` has any: pauses without
    /// end would be no fair order.
    fn finish_disturbed(&mut self, order: &[u32], disturbances: &[u32]) -> Vec<StepState> {
        for turn in 0..10_000 {
            let disturbance = disturbances.get(turn);
            if (self.work.is_empty() || disturbance.is_none()) && self.workflow.is_paused() {
                self.resume();
            }
            if self.work.is_empty() {
                break;
            }
            self.chance = order[turn % order.len()] as usize;
            let work = self.work.swap_remove(self.chance % self.work.len());
            self.run(work);
            disturbance.iter().for_each(|chance| self.disturb(**chance as usize));
        }
        self.check_end();
        self.steps.iter().map(|step| self.workflow.state_of(step)).collect()
    }
}

/// Whether a command may arrive twice. For others the store knows which tasks were created and have ended.
pub(super) fn may_come_again(command: &StepCommand) -> bool {
    matches!(
        command,
        StepCommand::Skip | StepCommand::Start(_) | StepCommand::Reuse { .. } | StepCommand::Finish { .. }
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn disturbed_workflows_end_as_others_do(graph in graph(), order in prop::collection::vec(any::<u32>(), 50), other in prop::collection::vec(any::<u32>(), 50), disturbances in prop::collection::vec(any::<u32>(), 0..300)) {
        let (mut calm, mut disturbed) = (World::new(graph.clone()), World::new(graph.clone()));
        let (states, others) = (calm.finish(&order, None), disturbed.finish_disturbed(&other, &disturbances));
        let missed = calm.misses() || disturbed.misses();
        if matches!(graph.policy, Policy::SkipDependents | Policy::Continue) && !missed {
            prop_assert_eq!(states, others);
        }
        if !missed {
            prop_assert_eq!(calm.workflow.outcome, disturbed.workflow.outcome);
        }
    }
}
