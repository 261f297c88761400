//! Failed compensations that a person resolves: the workflow continues after its end, and ends again.

use std::time::Duration;

use rota_core::Timestamp;
use rota_core::task::Completion;
use rota_core::workflow::{
    COMPENSATION, Command, Group, Place, Rejected, Resolution, Resolved, State, StepCommand, StepState,
};
use uuid::Uuid;

use super::follow_ups::settle;
use super::harness::{Harness, namespace};
use super::workflow_run::{Run, failed, ok, step, workflow};
use crate::{Action, Refused, WorkflowCommand, WorkflowQuery};

const SECOND: Duration = Duration::from_secs(1);

async fn resolve(run: &mut Run<'_>, step: u32, failure: u32, resolution: Resolution) -> Result<(), Refused> {
    let [by, by_subject, note] = ["ada", "person-7", "looked"].map(str::to_owned);
    let resolved = Resolved { failure, resolution, by, by_subject, note, at: Timestamp(0) };
    let command = StepCommand::Resolve(resolved);
    let (namespace, id) = (namespace("n"), run.workflow.id);
    let answer = run.apply(WorkflowCommand::Step { namespace, id, step, command, output: None }).await;
    settle(run.t).await;
    answer.map(drop)
}

async fn compensate(run: &mut Run<'_>, step: u32, item: u32, completion: Completion) {
    let mut create = run.tasks(step, COMPENSATION, item..item + 1).remove(0);
    let after_failures = run.step(step).await.compensation_failures();
    if let Some(place) = create.task.step.as_mut() {
        place.after_failures = after_failures;
    }
    run.drive(step, Action::Compensate(Box::new(create))).await.unwrap();
    assert_eq!(run.end(9, completion).await.len(), 1);
}

/// Lets the compensation of one of two elements fail twice, and that of a step, while the store is reopened.
pub async fn resolved_compensations_continue(t: &mut Harness) {
    let mut steps = vec![step("one", &[]), step("each", &[0]), step("bad", &[1])];
    (steps[0].step.compensates, steps[1].step.compensates) = (true, true);
    steps[1].step.compensates_each = true;
    let mut given = workflow(steps);
    given.workflow.compensates = true;
    given.workflow.ttl = Some(SECOND * 60);
    let mut run = Run::new(t, given, true).await;
    run.run(0, ok("1")).await;
    run.start(1, 1, 2, 2, 0).await.unwrap();
    assert_eq!(run.end(2, ok("2")).await.len(), 2);
    run.run(2, failed()).await;
    let refused = Err(Refused::Workflow(Rejected::NoFailedCompensation));
    assert_eq!(resolve(&mut run, 1, 0, Resolution::Done).await, refused);
    for (failure, resolution) in [(1, Resolution::Retry), (2, Resolution::Skip)] {
        compensate(&mut run, 1, 1, failed()).await;
        let ended = run.workflow().await;
        assert_eq!((ended.state, ended.ended_at.is_some()), (State::CompensationFailed, true));
        assert_eq!(run.t.commits.last().unwrap().workflows_ended, [run.key()]);
        assert_eq!(resolve(&mut run, 1, failure + 1, resolution).await, refused, "there is no such failure");
        for _ in 0..2 {
            assert_eq!(resolve(&mut run, 1, failure, resolution).await, Ok(()), "it may be repeated");
        }
        assert_eq!(
            resolve(&mut run, 1, failure, Resolution::Done).await,
            refused,
            "it was resolved otherwise"
        );
        let open = run.workflow().await;
        assert_eq!((open.state, open.ended_at, open.due()), (State::Compensating, None, None));
        assert_eq!(run.driven().await, [1]);
    }
    // No time to live passes while it continues.
    run.t.later(SECOND * 120);
    run.t.tick().await;
    assert_eq!(run.t.prune(run.t.now(), 10).await, 0);
    compensate(&mut run, 1, 0, ok("undone")).await;
    assert_eq!(run.step(1).await.compensation, Some(StepState::Skipped));
    let message = "no such value".to_owned();
    run.drive(0, Action::CompensationFailed { after: None, message }).await.unwrap();
    assert_eq!(run.workflow().await.state, State::CompensationFailed);
    assert_eq!(resolve(&mut run, 0, 0, Resolution::Done).await, Ok(()));
    let (ended, one) = (run.workflow().await, run.step(0).await);
    assert_eq!((ended.state, ended.resolved), (State::Failed, 3));
    assert_eq!(one.compensation, Some(StepState::Succeeded));
    let resolved = one.resolved.unwrap();
    assert_eq!((&*resolved.by, &*resolved.by_subject, resolved.failure), ("ada", "person-7", 1));
    assert_eq!(Some(resolved.at), ended.ended_at);
    assert_eq!(run.driven().await, [0; 0]);
    // All of its tasks are removed with it, also those of the same element.
    run.t.later(SECOND * 60);
    run.t.tick().await;
    settle(run.t).await;
    assert_eq!(run.query(WorkflowQuery::Key(run.key())).await.workflows, []);
    assert!(run.t.store.snapshot().await.unwrap().follow_ups.is_empty());
}

/// A workflow has left its group with its end: it continues once it has a place there again.
pub async fn resolved_compensation_waits_for_its_group(t: &mut Harness) {
    let grouped = |id: u128| {
        let mut steps = vec![step("one", &[]), step("bad", &[0])];
        steps[0].step.compensates = true;
        let mut given = workflow(steps);
        given.workflow.id = rota_core::WorkflowId(Uuid::from_u128(id));
        given.workflow.compensates = true;
        let group = Group { name: "g".to_owned(), limit: 1, replaces: false, place: Place::Outside };
        given.workflow.group = Some(Box::new(group));
        given
    };
    let mut run = Run::new(t, grouped(1), true).await;
    // Its place in the group may come with another commit.
    settle(run.t).await;
    run.run(0, ok("1")).await;
    run.run(1, failed()).await;
    compensate(&mut run, 0, 0, failed()).await;
    let other = grouped(2).workflow.id;
    run.apply(WorkflowCommand::Create(Box::new(grouped(2)))).await.unwrap();
    settle(run.t).await;
    assert_eq!(resolve(&mut run, 0, 1, Resolution::Retry).await, Ok(()));
    let waiting = run.workflow().await;
    assert_eq!((waiting.state, waiting.waits_for_group()), (State::Compensating, true));
    assert_eq!(run.step(0).await.compensation, Some(StepState::Held));
    let command = Command::Cancel { reason: String::new() };
    let cancel = WorkflowCommand::Apply { namespace: namespace("n"), id: other, command };
    run.apply(cancel).await.unwrap();
    settle(run.t).await;
    assert_eq!(run.step(0).await.compensation, Some(StepState::Ready));
    compensate(&mut run, 0, 0, ok("undone")).await;
    let ended = run.workflow().await;
    assert_eq!((ended.state, ended.resolved), (State::Failed, 1));
    assert_eq!(ended.group.unwrap().place, Place::Outside);
}
