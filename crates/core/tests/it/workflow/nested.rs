//! Workflows that are steps, and merges, which are such: each is a world of its own, and what happens there is mixed at random
//! with what happens around it.

use rota_core::WorkflowKey;
use rota_core::workflow::{NestedCommand, Parent, StepRef};

use super::*;

/// A workflow that a step runs, with its place: step, round, item.
pub(super) struct Inner {
    place: (usize, u32, u32),
    pub(super) world: World,
}

impl World {
    pub(super) fn create_inner(&mut self, graph: &Graph, step: usize, round: u32, item: u32) {
        let place = (step, round, item);
        assert!(self.inner.iter().all(|inner| inner.place != place), "{place:?} is created twice");
        let mut world = Self::new(graph.clone());
        let parent = StepRef::of(&self.workflow, &self.steps[step], round, item);
        let parent = StepRef { workflow: WorkflowKey(1), ..parent };
        world.workflow.parent = Some(Box::new(Parent { step: parent, depth: 1, root: WorkflowKey(1) }));
        self.work.push(Work::Inner(self.inner.len()));
        self.inner.push(Inner { place, world });
    }

    /// Lets something happen in a workflow that is a step. Its end, once it is passed on, is that of a task.
    pub(super) fn run_inner(&mut self, at: usize) {
        let Inner { place: (step, round, _), world } = &mut self.inner[at];
        let (step, round, was_reported) = (*step, *round, world.is_reported);
        world.now = world.now.max(self.now);
        world.chance = self.chance / 3;
        if !world.work.is_empty() {
            let work = world.work.swap_remove(world.chance % world.work.len());
            world.run(work);
        }
        self.now = world.now;
        if !world.work.is_empty() {
            self.work.push(Work::Inner(at));
        }
        if world.is_reported && !was_reported {
            let end = world.workflow.end_as_step();
            self.step(step, StepCommand::TaskEnded { round, end });
        }
    }

    /// Passes a command on, as a store does.
    pub(super) fn pass_on(&mut self, command: NestedCommand, only: Option<u32>) {
        if !self.workflow.still_passes_on(command) {
            return;
        }
        let cancels = matches!(command, NestedCommand::Cancel | NestedCommand::CancelFinally);
        for (at, Inner { place: (step, round, _), world }) in self.inner.iter_mut().enumerate() {
            let step = &self.steps[*step];
            let is_stopped = self.workflow.is_stopped(step.index);
            let is_meant = only.map_or(!cancels || is_stopped, |only| only == step.index);
            if !is_meant || step.round != *round {
                continue;
            }
            let command = match command {
                NestedCommand::Cancel => Command::Cancel { reason: String::new() },
                NestedCommand::CancelFinally => Command::CancelFinally { reason: String::new() },
                NestedCommand::Pause { suspend } => Command::Pause { suspend },
                NestedCommand::Resume => Command::RESUME,
                NestedCommand::Remove => panic!("nothing is removed"),
            };
            world.now = world.now.max(self.now);
            // One that has ended, or ends, needs none.
            if world.try_apply(command).is_ok() {
                world.drive_all();
            }
            if !self.work.contains(&Work::Inner(at)) {
                self.work.push(Work::Inner(at));
            }
        }
    }

    /// Checks that the workflows of steps have ended, each of which was created once.
    pub(super) fn check_inner(&self) {
        for Inner { place, world } in &self.inner {
            assert!(world.is_reported, "the end of {place:?} was not passed on");
            world.check_end();
        }
        for (index, step) in self.steps.iter().enumerate() {
            if step.kind == Kind::Workflow && !step.reused {
                let of_round = |inner: &&Inner| (inner.place.0, inner.place.1) == (index, step.round);
                let created = self.inner.iter().filter(of_round).count();
                assert_eq!(created, step.created as usize, "{step:#?}");
            }
        }
    }
}

/// A merge in conflict: the person who resolves it is asked once, and its failure fails the step and what is around it.
#[test]
fn conflict_of_a_merge_reaches_the_workflow_around_it() {
    for (fails, expected) in [(false, State::Succeeded), (true, State::Failed)] {
        let mut merge = World::by_hand(0, &[Kind::Task]);
        let resolve = Plan { needs: vec![(0, false)], kind: 0, fails, ..graphs::TASK };
        let verify = Plan { needs: vec![(0, false), (1, false)], ..graphs::TASK };
        merge.graph.steps.extend([resolve, verify]);
        let join = Plan { inner: Some(Box::new(merge.graph)), ..graphs::TASK };
        let test = Plan { needs: vec![(0, false)], ..graphs::TASK };
        let mut graph = World::by_hand(0, &[]).graph;
        graph.steps = vec![join, test];
        let mut world = World::new(graph);
        world.run_but(&[]);
        world.check_end();
        // One that fails has another attempt.
        assert_eq!((world.workflow.state, world.inner.len()), (expected, if fails { 2 } else { 1 }));
        let ran = world.inner[0].world.starts.keys().map(|(step, _)| *step).collect::<Vec<_>>();
        assert_eq!(ran, if fails { vec![0, 1] } else { vec![0, 1, 2] });
        assert_eq!(world.starts.contains_key(&(1, 1)), !fails, "what needs the merge");
    }
}
