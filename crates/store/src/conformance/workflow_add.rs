//! Steps that are added to a workflow that runs.

use rota_core::workflow::{Command as Apply, Rejected, State, StepState};

use super::follow_ups::settle;
use super::harness::{Harness, ask, attempt_of, finish, namespace};
use super::workflow_run::{Run, failed, ok, step, workflow};
use crate::{AddStep, Command, Refused, Reply, WorkflowCommand};

fn add(run: &Run<'_>, name: &str, needs: &[u32], total: u32) -> WorkflowCommand {
    let mut new = step(name, needs);
    new.needs.iter_mut().for_each(|need| need.continues = name.starts_with("any"));
    let stops = needs.iter().map(|need| (*need, false)).collect();
    let (namespace, id) = (namespace("n"), run.workflow.id);
    WorkflowCommand::AddStep(Box::new(AddStep { namespace, id, total, step: new, stops }))
}

async fn added(run: &mut Run<'_>, name: &str, needs: &[u32], total: u32) -> u32 {
    let command = add(run, name, needs, total);
    match run.apply(command).await {
        Ok(Reply::Step(step)) => step.index,
        other => panic!("no step: {other:?}"),
    }
}

async fn adding(t: &mut Harness, reloads: bool) {
    let mut steps = vec![step("a", &[]), step("b", &[]), step("clean", &[])];
    steps[2].step.finally = true;
    let mut run = Run::new(t, workflow(steps), reloads).await;
    run.run(0, ok("1")).await;
    assert_eq!(added(&mut run, "after", &[0], 3).await, 3, "behind the finally-steps");
    assert_eq!(run.driven().await, [1, 3], "its need has ended");
    let stale = add(&run, "late", &[0], 3);
    assert_eq!(run.apply(stale).await.unwrap_err(), Refused::Workflow(Rejected::Outdated));
    assert_eq!(added(&mut run, "both", &[0, 1], 4).await, 4);
    assert_eq!(run.step(4).await.needs, 1);
    assert_eq!(added(&mut run, "any", &[4], 5).await, 5);
    assert_eq!(added(&mut run, "last", &[5, 3], 6).await, 6);
    run.run(3, ok("3")).await;
    run.run(1, ok("2")).await;
    assert_eq!(run.driven().await, [4]);
    run.run(4, failed()).await;
    settle(run.t).await;
    // Its need continues, and so its failure does not stop the workflow.
    assert_eq!((run.step(4).await.state, run.driven().await), (StepState::Failed, vec![5]));
    run.run(5, ok("5")).await;
    settle(run.t).await;
    assert_eq!(run.driven().await, [6], "the finally-step waits");
    run.run(6, ok("6")).await;
    assert_eq!((run.driven().await, run.workflow().await.state), (vec![2], State::Finalizing));
    let late = add(&run, "late", &[], 7);
    assert_eq!(run.apply(late).await.unwrap_err(), Refused::Workflow(Rejected::Phase(State::Finalizing)));
    run.run(2, ok("clean")).await;
    let ended = run.workflow().await;
    assert_eq!((ended.state, ended.succeeded, ended.failed, ended.added), (State::Failed, 6, 1, 4));
}

pub async fn steps_are_added_to_a_running_workflow(t: &mut Harness) {
    adding(t, false).await;
}

pub async fn added_steps_continue_after_each_reopen(t: &mut Harness) {
    adding(t, true).await;
}

pub async fn added_step_sees_the_end_in_its_commit(t: &mut Harness) {
    let mut run = Run::new(t, workflow(vec![step("a", &[]), step("b", &[])]), false).await;
    for index in [0, 1] {
        run.start(index, 1, 1, 1, 0).await.unwrap();
    }
    let worker = run.worker().await;
    let tasks = run.t.claim(&worker, 2).await;
    let end = |at: usize| ask(tasks[at].id, finish(attempt_of(&tasks[at]), ok("1")));
    // Before the end of its need, and behind it.
    let (before, behind) = (add(&run, "before", &[0], 2), add(&run, "behind", &[1], 3));
    let batch = vec![Command::from(before), end(0), end(1), Command::from(behind)];
    for reply in run.t.batch(batch).await {
        reply.unwrap();
    }
    settle(run.t).await;
    assert_eq!(run.driven().await, [2, 3]);
    assert_eq!((run.step(2).await.needs, run.step(3).await.needs), (0, 0));
    let (namespace, id) = (namespace("n"), run.workflow.id);
    let command = Apply::Cancel { reason: String::new() };
    run.apply(WorkflowCommand::Apply { namespace, id, command }).await.unwrap();
    settle(run.t).await;
    assert_eq!(run.workflow().await.state, State::Cancelled);
}
