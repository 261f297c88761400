//! The timeout of a workflow that has stopped already: what still runs is cancelled, once.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A workflow with a timeout whose first step has failed, while the second one runs. Returns also when it is due.
fn stopping(pauses: bool) -> (World, Timestamp) {
    let mut world = World::by_hand(1, &[Kind::Task, Kind::Task, Kind::Task]);
    world.workflow.timeout = Some(SECOND * 10);
    let mut due = world.workflow.due().unwrap();
    world.run_but(&[0, 1]);
    if pauses {
        world.pause();
        world.now = world.now + SECOND * 60;
        due = due + SECOND * 60;
    }
    world.step(0, StepCommand::TaskEnded { round: 1, end: TaskEnd::Failed });
    world.work.retain(|work| !matches!(work, Work::Task(0, ..)));
    world.run_but(&[1]);
    assert_eq!((world.workflow.state, world.steps[1].state), (State::Stopping, StepState::Running));
    (world, due)
}

#[test]
fn timeout_cancels_what_a_stopping_workflow_waits_for() {
    for pauses in [false, true] {
        let (mut world, due) = stopping(pauses);
        assert_eq!(world.workflow.due(), Some(due));
        world.now = due + Duration::from_millis(1);
        world.apply(Command::TICK);
        assert!(world.work.contains(&Work::Follow(Follow::CancelTasks)), "{:?}", world.work);
        assert_eq!(world.workflow.due(), None, "it is due once");
        let before = (world.workflow.clone(), world.work.len());
        world.apply(Command::TICK);
        assert_eq!((world.workflow.clone(), world.work.len()), before);
        // Its task ends by the cancellation alone.
        world.run_but(&[1]);
        let ended = &world.workflow;
        assert_eq!((ended.state, ended.failed_step.as_str()), (State::Failed, "s0"));
        let states = [StepState::Failed, StepState::Cancelled, StepState::Succeeded];
        assert_eq!([0, 1, 2].map(|index: usize| world.steps[index].state), states);
    }
}

#[test]
fn workflow_whose_tasks_are_cancelled_has_no_timeout() {
    let (mut world, _) = stopping(false);
    world.apply(Command::Cancel { reason: String::new() });
    assert_eq!((world.workflow.state, world.workflow.due()), (State::Stopping, None));
}
