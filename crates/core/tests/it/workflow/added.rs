//! Steps that are added while a workflow runs.

use super::*;

impl World {
    /// Adds the next step, as a store does: what it needs and has ended is judged now, the rest when it ends.
    pub(super) fn add(&mut self) {
        let plan = self.graph.added.remove(0);
        let index = self.steps.len();
        let mut step = Self::planned(index, &plan);
        step.stops = stops(&self.graph, &self.edges, index);
        let mut open = Vec::new();
        for (need, continues) in &plan.needs {
            let continues = *continues || self.graph.policy == Policy::Continue;
            // One that was refused: this one will be, too.
            let Some(needed) = self.steps.get(*need) else { continue };
            if needed.state.is_final() {
                step.doomed |= !needed.satisfies(continues);
            } else {
                open.push((*need, continues));
            }
        }
        step.needs = u32::try_from(open.len()).unwrap();
        let before = self.workflow.clone();
        let change = match self.workflow.add(&mut step, self.now) {
            Ok(change) => change,
            Err(rejected) => {
                assert!(matches!(rejected, Rejected::Phase(_) | Rejected::Final(_)), "{rejected}");
                assert_eq!(self.workflow, before);
                assert_ne!(before.state, State::Running);
                // None is added after that, so that the indexes of the others stay what was planned.
                return self.missed += 1;
            }
        };
        assert_eq!((before.state, step.index as usize), (State::Running, index));
        for (need, continues) in open {
            self.edges.entry(need).or_default().push((index, continues));
            self.steps[need].has_dependents = true;
            self.steps[need].stops = stops(&self.graph, &self.edges, need);
        }
        self.graph.steps.push(plan);
        self.steps.push(step);
        self.settle(change);
        self.observe(index, None);
    }

    /// Whether a step was not added, here or in a workflow that is a step: a matter of time.
    pub(super) fn misses(&self) -> bool {
        self.missed > 0 || self.inner.iter().any(|inner| inner.world.misses())
    }
}
