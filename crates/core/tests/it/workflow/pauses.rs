//! Pauses, and the end of workflows that were paused or cancelled before.

use super::*;

impl World {
    pub(super) fn pause(&mut self) {
        if self.workflow.state == State::Running {
            self.apply(Command::Pause { suspend: false });
        } else {
            let refused = self.workflow.clone().apply(Command::Pause { suspend: false }, self.now);
            assert!(matches!(refused, Err(Rejected::Phase(_) | Rejected::Final(_))));
        }
    }

    /// Asks the driver again, as it does once a workflow is not paused any more.
    pub(super) fn drive_all(&mut self) {
        for index in 0..self.steps.len() {
            if self.steps[index].needs_driver() && !self.work.contains(&Work::Drive(index)) {
                self.work.push(Work::Drive(index));
            }
        }
    }

    pub(super) fn resume(&mut self) {
        self.apply(Command::RESUME);
        self.drive_all();
    }

    pub(super) fn by_hand(finals: usize, kinds: &[Kind]) -> Self {
        let (steps, added, policy) = (vec![graphs::TASK; kinds.len()], Vec::new(), Policy::Stop);
        let mut world = Self::new(Graph { steps, added, finals, policy, max_parallel: 0, grouped: false });
        for (step, kind) in world.steps.iter_mut().zip(kinds) {
            step.kind = *kind;
        }
        world
    }

    /// Executes what is left, besides tasks that hang.
    pub(super) fn run_but(&mut self, hanging: &[usize]) {
        let hangs = |work: &Work| matches!(work, Work::Task(index, ..) if hanging.contains(index));
        while let Some(at) = self.work.iter().position(|work| !hangs(work)) {
            let work = self.work.swap_remove(at);
            self.run(work);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// While it is paused, no step, round or task starts (`observe` checks that); once it is resumed or stops, it ends.
    #[test]
    fn paused_workflows_start_nothing(graph in graph(), order in prop::collection::vec(any::<u32>(), 50), at in 0..20usize, cancelled in any::<bool>()) {
        let mut world = World::new(graph);
        for turn in 0..at {
            if world.work.is_empty() {
                break;
            }
            let next = order[turn % order.len()] as usize % world.work.len();
            let work = world.work.swap_remove(next);
            world.run(work);
        }
        world.pause();
        world.run_but(&[]);
        if world.workflow.is_paused() && cancelled {
            world.apply(Command::Cancel { reason: String::new() });
            world.drive_all();
        } else if !world.workflow.state.is_final() {
            world.resume();
        }
        world.finish(&order, None);
    }
}

#[test]
fn pause_stops_the_clock_of_a_workflow() {
    let second = Duration::from_secs(1);
    let mut world = World::by_hand(1, &[Kind::Task, Kind::Task]);
    world.workflow.timeout = Some(second * 10);
    let due = world.workflow.due().unwrap();
    world.run_but(&[0]);
    for _ in 0..2 {
        world.pause();
        world.now = world.now + second * 60;
        // The pause has begun before.
        world.pause();
        world.now = world.now + second * 60;
        world.apply(Command::TICK);
        assert_eq!((world.workflow.due(), world.workflow.state), (None, State::Running));
        world.resume();
        world.resume();
    }
    assert_eq!(world.workflow.due(), Some(due + second * 240));
    world.now = due + second * 239;
    world.apply(Command::TICK);
    assert_eq!(world.workflow.state, State::Running);
    world.now = due + second * 240;
    world.apply(Command::TICK);
    world.finish(&[0], None);
    assert_eq!((world.workflow.state, world.steps[1].state), (State::Failed, StepState::Succeeded));
}

#[test]
fn pause_stops_the_clock_of_an_approval() {
    let second = Duration::from_secs(1);
    let approval = Kind::Approval { deadline: Some(second * 10), approves: false };
    let mut world = World::by_hand(0, &[approval, approval, Kind::Sleep { duration: second * 10 }]);
    world.run_but(&[0, 1, 2]);
    let start = world.now;
    let tick = |away: u32| StepCommand::Tick { by: Timestamp::MAX, away: second * away };
    world.pause();
    world.now = start + second * 60;
    world.step(0, tick(0));
    assert_eq!((world.steps[0].due, world.steps[0].state), (None, StepState::Running));
    world.step(2, tick(0));
    assert_eq!(world.steps[2].state, StepState::Succeeded, "a wait is over");
    world.apply(Command::Resume { away: second * 20 });
    // A tick may come before its consequences.
    world.step(1, tick(20));
    assert_eq!(world.steps[1].due, Some(start + second * 70));
    world.run_but(&[0, 1, 2]);
    assert_eq!(world.steps[0].due, Some(start + second * 50), "10 s, and 40 s of the pause");
    world.step(0, tick(20));
    assert_eq!((world.steps[0].due, world.steps[0].state), (world.steps[1].due, StepState::Running));
    world.step(0, tick(0));
    world.now = start + second * 70;
    for index in 0..2 {
        world.step(index, tick(0));
        assert_eq!(world.steps[index].state, StepState::Failed);
    }
}

#[test]
fn failure_resumes_what_a_pause_has_suspended() {
    let mut world = World::by_hand(0, &[Kind::Task, Kind::Task]);
    world.run_but(&[0, 1]);
    world.apply(Command::Pause { suspend: true });
    world.work.retain(|work| *work != Work::Follow(Follow::SuspendTasks));
    world.steps[0].stops = true;
    world.step(0, StepCommand::TaskEnded { round: 1, end: TaskEnd::Failed });
    assert!(world.work.contains(&Work::Follow(Follow::ResumeTasks)), "{:?}", world.work);
    assert!(!world.workflow.paused);
}

/// A person may have suspended a task for a reason of its own.
#[test]
fn pause_that_suspended_nothing_resumes_nothing() {
    let mut world = World::by_hand(0, &[Kind::Task, Kind::Task]);
    world.run_but(&[0, 1]);
    let resumes = |world: &World| world.work.contains(&Work::Follow(Follow::ResumeTasks));
    world.apply(Command::Pause { suspend: false });
    world.apply(Command::RESUME);
    assert!(!resumes(&world), "{:?}", world.work);
    world.apply(Command::Pause { suspend: true });
    world.apply(Command::RESUME);
    assert!(resumes(&world), "{:?}", world.work);
    // That may not have come to all tasks before the next pause, which takes its place.
    world.work.retain(|work| !matches!(work, Work::Follow(_)));
    world.apply(Command::Pause { suspend: false });
    world.apply(Command::RESUME);
    assert!(resumes(&world), "{:?}", world.work);
}

#[test]
fn only_an_explicit_cancellation_ends_finally_steps() {
    let mut world = World::by_hand(1, &[Kind::Task, Kind::Task]);
    world.run_but(&[0]);
    world.apply(Command::Cancel { reason: "first".to_owned() });
    world.run_but(&[1]);
    assert_eq!((world.workflow.state, world.steps[1].state), (State::Finalizing, StepState::Running));
    let before = world.workflow.clone();
    world.apply(Command::Cancel { reason: "second".to_owned() });
    assert_eq!((&world.workflow, world.work.len()), (&before, 1), "a repetition changes nothing");
    world.apply(Command::CancelFinally { reason: "third".to_owned() });
    world.run_but(&[1]);
    assert_eq!((world.workflow.state, world.workflow.message.as_str()), (State::Cancelled, "first"));
    assert_eq!(world.steps[1].state, StepState::Cancelled);
}

/// Compensations are no finally-steps: they run in any case.
#[test]
fn early_cancellation_of_finally_steps_starts_none() {
    for (stops, compensates) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::by_hand(1, &[Kind::Task, Kind::Task, Kind::Task]);
        (world.workflow.compensates, world.steps[0].compensates) = (compensates, true);
        world.graph.policy = if compensates { Policy::Compensate } else { Policy::Stop };
        world.graph.steps[0].compensates = true;
        world.run_but(&[1]);
        if stops {
            world.apply(Command::Cancel { reason: "first".to_owned() });
        }
        world.apply(Command::CancelFinally { reason: "second".to_owned() });
        assert_eq!(world.workflow.state, State::Stopping);
        world.run_but(&[]);
        let reason = if stops { "first" } else { "second" };
        assert_eq!((world.workflow.state, world.workflow.message.as_str()), (State::Cancelled, reason));
        assert_eq!(world.workflow.state_of(&world.steps[2]), StepState::Skipped);
        assert_eq!(world.compensated.len(), usize::from(compensates));
        world.check_end();
    }
}

#[test]
fn first_cancellation_spares_finally_steps() {
    for (end, outcome) in [(TaskEnd::Succeeded, None), (TaskEnd::Failed, Some(Outcome::Failed))] {
        let mut world = World::by_hand(1, &[Kind::Task, Kind::Task]);
        world.run_but(&[0]);
        world.step(0, StepCommand::TaskEnded { round: 1, end });
        world.work.retain(|work| *work != Work::Task(0, 1, 0));
        world.run_but(&[1]);
        assert_eq!((world.workflow.state, world.steps[1].state), (State::Finalizing, StepState::Running));
        let before = world.workflow.clone();
        world.apply(Command::Cancel { reason: "first".to_owned() });
        world.run_but(&[1]);
        assert_eq!(world.workflow, Workflow { cancelled: true, ..before });
        let mut second = world.workflow.clone();
        second.apply(Command::CancelFinally { reason: "second".to_owned() }, world.now).unwrap();
        assert_eq!(second.outcome, outcome.or(Some(Outcome::Cancelled)), "what had failed has failed");
        assert!(second.finals_halted);
        world.run_but(&[]);
        assert_eq!((world.workflow.outcome, world.steps[1].state), (outcome, StepState::Succeeded));
        assert!(world.workflow.state.is_final());
    }
}

#[test]
fn stopped_workflow_creates_no_tasks() {
    let mut world = World::by_hand(0, &[Kind::Task, Kind::Task]);
    world.graph.steps[1].items = 9;
    world.graph.steps[1].parallel = 1;
    world.run_but(&[0, 1]);
    world.steps[0].stops = true;
    world.step(0, StepCommand::TaskEnded { round: 1, end: TaskEnd::Failed });
    assert_eq!(world.workflow.state, State::Stopping);
    // Before it takes notice.
    let (workflow, step) = (&mut world.workflow, &mut world.steps[1]);
    step.parallel = 0;
    assert!(step.wanted() > 0);
    assert_eq!(
        workflow.apply_to(step, StepCommand::Created { count: 1 }, world.now),
        Err(Rejected::Outdated)
    );
}
