//! Ends of workflows: compensation, cancellation, deadlines, removal.

use std::time::Duration;

use bytes::Bytes;
use rota_core::WorkflowId;
use rota_core::task::{Completion, Desired, State as TaskState};
use rota_core::workflow::{COMPENSATION, Command as Apply, Kind, Rejected, State, StepCommand, StepState};
use uuid::Uuid;

use super::follow_ups::settle;
use super::harness::{Harness, namespace, on};
use super::workflow_run::{Run, create, failed, ok, step, waiting, workflow};
use crate::{Action, Command as Ask, Reply, Tick, WorkflowCommand, WorkflowQuery};

const SECOND: Duration = Duration::from_secs(1);

/// Fails the third step, and compensates the others.
async fn compensation(t: &mut Harness, reloads: bool) {
    let mut steps = vec![step("one", &[]), step("two", &[0]), step("bad", &[1]), step("never", &[2])];
    (steps[0].step.compensates, steps[1].step.compensates) = (true, true);
    let mut given = workflow(steps);
    given.workflow.compensates = true;
    let mut run = Run::new(t, given, reloads).await;
    run.run(0, ok("1")).await;
    run.run(1, ok("2")).await;
    run.run(2, failed()).await;
    let stopped = run.workflow().await;
    assert_eq!((stopped.state, stopped.failed_step.as_str()), (State::Compensating, "bad"));
    for step in [1, 0] {
        assert_eq!(run.driven().await, [step], "the last one first");
        let create = run.tasks(step, COMPENSATION, 0..1).remove(0);
        run.drive(step, Action::Compensate(Box::new(create))).await.unwrap();
        let ended = run.end(9, ok("undone")).await;
        assert_eq!(ended[0].step.as_ref().map(|place| (place.step, place.round)), Some((step, COMPENSATION)));
        assert_eq!(run.step(step).await.compensation, Some(StepState::Succeeded));
    }
    let ended = run.workflow().await;
    assert_eq!((ended.state, run.step(3).await.state), (State::Failed, StepState::Waiting));
    assert_eq!(ended.state_of(&run.step(3).await), StepState::Skipped);
}

pub async fn completed_steps_are_compensated(t: &mut Harness) {
    compensation(t, false).await;
}

pub async fn compensation_continues_after_each_reopen(t: &mut Harness) {
    compensation(t, true).await;
}

/// Fails one of three elements, and compensates the others, while the store is reopened.
pub async fn completed_elements_are_compensated(t: &mut Harness) {
    let mut steps = vec![step("each", &[])];
    (steps[0].step.compensates, steps[0].step.compensates_each) = (true, true);
    let mut given = workflow(steps);
    given.workflow.compensates = true;
    let mut run = Run::new(t, given, true).await;
    run.start(0, 1, 3, 3, 0).await.unwrap();
    for (item, completion) in [(0, ok("1")), (1, failed()), (2, ok("3"))] {
        let ended = run.end(1, completion).await;
        assert_eq!(ended[0].step.as_ref().map(|place| place.item), Some(item));
    }
    assert_eq!(run.workflow().await.state, State::Compensating);
    for item in [2, 0] {
        assert_eq!(run.driven().await, [0]);
        let outdated = Action::CompensationFailed { after: Some(item), message: String::new() };
        assert_eq!(run.drive(0, outdated).await, Err(Rejected::Outdated));
        for repeated in [false, true] {
            let create = run.tasks(0, COMPENSATION, item..item + 1).remove(0);
            let driven = run.drive(0, Action::Compensate(Box::new(create))).await;
            assert_eq!(driven.is_err(), repeated, "the second one is outdated");
        }
        let ended = run.end(9, ok("undone")).await;
        let places: Vec<_> = ended.iter().filter_map(|task| task.step.as_ref()).collect();
        assert_eq!(
            places.iter().map(|place| (place.round, place.item)).collect::<Vec<_>>(),
            [(COMPENSATION, item)]
        );
    }
    let (ended, each) = (run.workflow().await, run.step(0).await);
    assert_eq!((ended.state, each.state), (State::Failed, StepState::Failed));
    assert_eq!((each.compensation, run.driven().await), (Some(StepState::Succeeded), Vec::new()));
}

pub async fn failed_compensation_ends_the_workflow(t: &mut Harness) {
    let mut steps = vec![step("one", &[]), step("two", &[0]), step("bad", &[1])];
    (steps[0].step.compensates, steps[1].step.compensates) = (true, true);
    let mut given = workflow(steps);
    given.workflow.compensates = true;
    let mut run = Run::new(t, given, false).await;
    run.run(0, ok("1")).await;
    run.run(1, ok("2")).await;
    run.run(2, failed()).await;
    run.drive(1, Action::CompensationFailed { after: None, message: "no such value".to_owned() })
        .await
        .unwrap();
    let ended = run.workflow().await;
    assert_eq!(ended.state, State::CompensationFailed);
    assert!(ended.message.contains("no such value"), "{}", ended.message);
    assert_eq!((run.step(0).await.compensation, run.driven().await), (None, Vec::new()));
}

pub async fn cancelled_workflow_ends_its_tasks(t: &mut Harness) {
    let mut steps = vec![step("a", &[]), step("b", &[]), step("c", &[0]), step("clean", &[])];
    steps[3].step.finally = true;
    let mut run = Run::new(t, workflow(steps), false).await;
    run.start(0, 1, 2, 2, 0).await.unwrap();
    run.start(1, 1, 1, 1, 0).await.unwrap();
    // One is on a worker.
    let worker = run.worker().await;
    let running = run.t.claim(&worker, 1).await.remove(0);
    let (namespace, id) = (namespace("n"), run.workflow.id);
    let cancel = Apply::Cancel { reason: "enough".to_owned() };
    run.apply(WorkflowCommand::Apply { namespace, id, command: cancel }).await.unwrap();
    settle(run.t).await;
    assert_eq!(run.step(1).await.state, StepState::Cancelled);
    assert_eq!((run.step(0).await.state, run.workflow().await.state), (StepState::Running, State::Stopping));
    run.t.finish(&running, Completion::Stopped { by: "the control plane".to_owned() }).await.unwrap();
    assert_eq!(run.t.state(running.id).await, TaskState::Cancelled);
    assert_eq!(
        (run.step(0).await.state, run.driven().await),
        (StepState::Cancelled, vec![3]),
        "a finally-step runs"
    );
    run.run(3, ok("clean")).await;
    let ended = run.workflow().await;
    assert_eq!((ended.state, ended.message.as_str()), (State::Cancelled, "enough"));
}

pub async fn deadlines_of_steps_and_workflows_pass(t: &mut Harness) {
    let approval = |approves| Kind::Approval { deadline: Some(SECOND), approves };
    let steps = vec![
        waiting("yes", approval(true), &[]),
        waiting("sleep", Kind::Sleep { duration: SECOND * 2 }, &[0]),
        waiting("signal", Kind::Signal { timeout: None }, &[1]),
    ];
    let mut given = workflow(steps);
    given.workflow.timeout = Some(SECOND * 60);
    let mut run = Run::new(t, given, true).await;
    let due = run.workflow.created_at + SECOND * 60;
    run.start(0, 1, 0, 0, 0).await.unwrap();
    assert_eq!(run.t.commits.last().unwrap().next_due, Some(run.t.now() + SECOND));
    assert_eq!(run.t.tick().await, 0, "nothing is due");
    run.t.reopen().await;
    run.t.later(SECOND);
    assert_eq!(run.t.tick().await, 1);
    assert_eq!(run.step(0).await.state, StepState::Succeeded);
    let approved = Bytes::from_static(br#"{"approved":true,"comment":""}"#);
    assert_eq!((run.step(0).await.has_output, run.outputs(vec![0]).await), (true, vec![(0, approved)]));
    assert_eq!(run.t.commits.last().unwrap().next_due, Some(due));
    run.start(1, 1, 0, 0, 0).await.unwrap();
    run.t.later(SECOND * 2);
    assert_eq!(run.t.tick().await, 1);
    run.start(2, 1, 0, 0, 0).await.unwrap();
    run.t.reopen().await;
    run.t.later(SECOND * 60);
    assert_eq!(run.t.tick().await, 1);
    settle(run.t).await;
    let ended = run.workflow().await;
    assert_eq!((ended.state, run.step(2).await.state), (State::Failed, StepState::Cancelled));
    assert_eq!((run.t.tick().await, run.t.commits.last().unwrap().next_due), (0, None));

    let mut rejected = workflow(vec![waiting("no", approval(false), &[])]);
    rejected.workflow.id = WorkflowId(Uuid::from_u128(2));
    let mut run = Run::new(t, rejected, false).await;
    run.start(0, 1, 0, 0, 0).await.unwrap();
    run.t.later(SECOND);
    assert_eq!(run.t.tick().await, 1);
    assert_eq!((run.step(0).await.state, run.workflow().await.state), (StepState::Failed, State::Failed));
    let rejected = Bytes::from_static(br#"{"approved":false,"comment":""}"#);
    assert_eq!((run.step(0).await.has_output, run.outputs(vec![0]).await), (true, vec![(0, rejected)]));
}

pub async fn late_tick_starts_nothing_before_what_it_needs(t: &mut Harness) {
    let steps = vec![
        waiting("sleep", Kind::Sleep { duration: SECOND }, &[]),
        step("task", &[]),
        step("last", &[0, 1]),
    ];
    let mut run = Run::new(t, workflow(steps), false).await;
    run.start(0, 1, 0, 0, 0).await.unwrap();
    run.t.later(SECOND);
    let seen = run.t.now();
    run.t.later(SECOND * 6);
    run.run(1, ok("done")).await;
    // It was sent before the end of the task, and comes after it.
    let tick = Tick { limit: 9, at: Some(seen), ..Tick::default() };
    assert!(matches!(run.t.one(Ask::Tick(tick)).await, Ok(Reply::Ticked(1))));
    let (ended, started) = (run.step(1).await.ended_at, run.step(2).await.ready_at);
    assert!(started >= ended && ended.is_some(), "{started:?} is before {ended:?}");
}

pub async fn late_tick_overtakes_no_decision(t: &mut Harness) {
    let approval = Kind::Approval { deadline: Some(SECOND * 2), approves: false };
    let mut run = Run::new(t, workflow(vec![waiting("ask", approval, &[])]), false).await;
    run.start(0, 1, 0, 0, 0).await.unwrap();
    run.t.later(SECOND);
    let tick = Tick { limit: 9, at: Some(run.t.now()), ..Tick::default() };
    run.t.later(SECOND * 2);
    let decide = StepCommand::Decide { approves: true, message: String::new() };
    let (namespace, id) = (namespace("n"), run.workflow.id);
    let decided = WorkflowCommand::Step { namespace, id, step: 0, command: decide, output: None };
    run.t
        .batch(vec![Ask::Tick(tick), decided.into()])
        .await
        .into_iter()
        .for_each(|reply| drop(reply.unwrap()));
    assert_eq!(run.step(0).await.state, StepState::Succeeded);
}

/// What runs while it stops, since a step has failed, may never end by itself.
pub async fn timeout_ends_a_stopping_workflow(t: &mut Harness) {
    let mut given = workflow(vec![step("fails", &[]), step("hangs", &[]), step("clean", &[])]);
    given.steps[2].step.finally = true;
    given.workflow.timeout = Some(SECOND * 60);
    let mut run = Run::new(t, given, false).await;
    let due = run.workflow.created_at + SECOND * 60;
    run.start(0, 1, 1, 1, 0).await.unwrap();
    run.start(1, 1, 1, 1, 0).await.unwrap();
    run.t.later(SECOND * 5);
    assert_eq!(run.end(1, failed()).await.len(), 1);
    settle(run.t).await;
    assert_eq!((run.workflow().await.state, run.step(1).await.state), (State::Stopping, StepState::Running));
    assert_eq!(run.t.commits.last().unwrap().next_due, Some(due));
    run.t.later(SECOND * 55);
    assert_eq!(run.t.tick().await, 1);
    settle(run.t).await;
    let stopped = run.workflow().await;
    assert_eq!((stopped.state, stopped.due()), (State::Finalizing, None));
    assert_eq!(run.step(1).await.state, StepState::Cancelled);
    assert_eq!((run.t.tick().await, run.t.commits.last().unwrap().next_due), (0, None));
    run.run(2, ok("clean")).await;
    let ended = run.workflow().await;
    assert_eq!((ended.state, ended.failed_step.as_str()), (State::Failed, "fails"));
}

pub async fn wide_workflow_is_removed_with_all_rows(t: &mut Harness) {
    const MANY: u32 = 600;
    let wide = (1..=MANY).map(|index| step(&format!("s{index}"), &[0]));
    let steps = std::iter::once(step("root", &[])).chain(wide).collect();
    let mut run = Run::new(t, workflow(steps), false).await;
    run.t.commits.clear();
    run.run(0, failed()).await;
    settle(run.t).await;
    run.t.later(SECOND);
    run.t.commits.clear();
    assert_eq!(run.t.prune(run.t.now(), 10).await, 1);
    // Twice as many rows as steps, since each needs the first: more than one commit removes.
    settle(run.t).await;
    let key = run.key();
    assert_eq!(run.query(WorkflowQuery::Key(key)).await.workflows, []);
    let specs = run.query(WorkflowQuery::StepSpecs { workflow: key, from: 0, limit: 999 }).await.bodies;
    assert_eq!((run.states().await, specs), (Vec::new(), Vec::new()));
    let snapshot = run.t.store.snapshot().await.unwrap();
    assert!(snapshot.follow_ups.is_empty());
}

pub async fn outages_count_for_no_deadline(t: &mut Harness) {
    let approval = Kind::Approval { deadline: Some(SECOND * 100), approves: true };
    let sleep = Kind::Sleep { duration: SECOND * 200 };
    let mut given = workflow(vec![waiting("yes", approval, &[]), waiting("sleep", sleep, &[])]);
    given.workflow.timeout = Some(SECOND * 1000);
    let mut run = Run::new(t, given, false).await;
    run.start(0, 1, 0, 0, 0).await.unwrap();
    run.start(1, 1, 0, 0, 0).await.unwrap();
    run.t.later(SECOND * 60);
    run.t.plain().await;
    // Stopped for an hour. Then callers have 30 s to come back, and 40 s are left.
    run.t.stopped(SECOND * 3600).await;
    assert_eq!(run.t.tick().await, 3);
    assert_eq!(run.workflow().await.state, State::Running);
    assert_eq!(run.states().await, [StepState::Running, StepState::Succeeded], "a wait is over");
    run.t.later(SECOND * 60);
    assert_eq!(run.t.tick().await, 0);
    // Asleep for an hour.
    run.t.later(SECOND * 3600);
    run.t.one(Ask::ClockJumped { by: SECOND * 3600 }).await.unwrap();
    assert_eq!(run.t.tick().await, 2);
    run.t.reopen().await;
    run.t.later(SECOND * 39);
    assert_eq!((run.t.tick().await, run.step(0).await.state), (0, StepState::Running));
    run.t.later(SECOND);
    assert_eq!((run.t.tick().await, run.step(0).await.state), (1, StepState::Succeeded));
    assert_eq!(run.workflow().await.state, State::Succeeded);
}

pub async fn start_judges_no_workflow_with_absent_workers(t: &mut Harness) {
    let mut given = workflow(vec![step("a", &[])]);
    given.workflow.timeout = Some(SECOND * 100);
    let mut run = Run::new(t, given, false).await;
    run.start(0, 1, 1, 1, 0).await.unwrap();
    let worker = run.worker().await;
    let task = run.t.claim(&worker, 1).await.remove(0);
    run.t.later(SECOND * 90);
    run.t.plain().await;
    run.t.stopped(SECOND * 3600).await;
    for _ in 0..5 {
        run.t.tick().await;
        assert_eq!(run.workflow().await.state, State::Running);
        run.t.later(SECOND * 60);
    }
    run.t.hello_again("w", "process 1", vec![(task.id, task.fence)]).await;
    run.t.tick().await;
    run.t.later(SECOND * 40);
    run.t.tick().await;
    let ended = run.workflow().await;
    assert_eq!(
        (ended.state, ended.message.as_str()),
        (State::Failed, "the time of the workflow has run out")
    );
}

pub async fn task_of_a_step_is_removed_with_its_workflow(t: &mut Harness) {
    let mut run = Run::new(t, workflow(vec![step("a", &[]), step("b", &[0])]), false).await;
    run.start(0, 1, 1, 1, 0).await.unwrap();
    let task = run.end(1, ok("x")).await.remove(0);
    let remove = || Ask::RemoveTask((namespace("n"), task.id));
    assert!(matches!(run.t.one(remove()).await, Ok(Reply::Pruned { count: 0, .. })));
    assert_eq!(run.results(0, 1).await, [Some(Bytes::from_static(b"x"))]);
    // The next step may read its result, and so may one that begins again from the workflow.
    run.run(1, ok("y")).await;
    assert_eq!(run.workflow().await.state, State::Succeeded);
    assert!(matches!(run.t.one(remove()).await, Ok(Reply::Pruned { count: 0, .. })));
}

pub async fn ended_workflow_is_pruned_with_its_tasks(t: &mut Harness) {
    // More tasks than one visit removes.
    let mut steps = vec![step("a", &[]), step("b", &[0])];
    steps[1].step.evaluates_end = true;
    let mut given = workflow(steps);
    given.key = Some("once".to_owned());
    let mut run = Run::new(t, given, false).await;
    run.start(0, 1, 100, 100, 0).await.unwrap();
    assert_eq!(run.end(100, ok("x")).await.len(), 100);
    run.t.later(SECOND);
    assert_eq!(run.t.prune(run.t.now(), 10).await, 0, "it has not ended");
    run.run(1, ok("y")).await;
    let outputs = Some(Bytes::from_static(b"z"));
    run.drive(1, Action::Finish { round: 1, again: false, outputs }).await.unwrap();
    // A task of another caller needs one of them, which outlives the workflow.
    let tasks = |from| WorkflowQuery::Tasks {
        workflow: run.key(),
        step: 0,
        round: 1,
        from,
        limit: 1,
        bytes: 1 << 20,
    };
    let needed = run.query(tasks(0)).await.tasks.remove(0).0;
    let places = async |from| {
        let found = run.query(tasks(from)).await.tasks;
        found.first().and_then(|(task, _)| task.step.as_ref().map(|place| place.item))
    };
    assert_eq!((places(0).await, places(7).await, places(100).await), (Some(0), Some(7), None));
    let mut dependent = run.t.after(vec![on(needed.id)]);
    dependent.task.desired = Desired::Suspended;
    run.t.create(dependent).await;
    let ended = run.t.now();
    assert_eq!(run.t.prune(ended, 10).await, 0, "it ended no earlier");
    run.t.later(SECOND);
    run.t.reopen().await;
    assert_eq!(run.t.prune(run.t.now(), 10).await, 1);
    run.t.reopen().await;
    settle(run.t).await;
    let (key, id) = (run.key(), run.workflow.id);
    for query in [WorkflowQuery::Key(key), WorkflowQuery::Id((namespace("n"), id))] {
        assert_eq!(run.query(query).await.workflows, []);
    }
    assert_eq!(run.states().await, []);
    let specs = run.query(WorkflowQuery::StepSpecs { workflow: key, from: 0, limit: 9 }).await.bodies;
    assert_eq!((specs, run.outputs(vec![1]).await), (Vec::new(), Vec::new()));
    assert_eq!((run.results(0, 1).await, run.results(1, 1).await), (Vec::new(), Vec::new()));
    assert_eq!(run.t.read(needed.id).await.step, None);
    // Its idempotency key is free again.
    let mut again = workflow(vec![step("a", &[])]);
    again.key = Some("once".to_owned());
    let (again, created) = create(run.t, again).await;
    assert!(created && again.key > key);
}
