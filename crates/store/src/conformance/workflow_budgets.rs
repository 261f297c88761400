//! Workflows and spent budgets of agents and namespaces: what is new may be refused, what was accepted waits.

use rota_core::spending::{Budget, Scope, WhenExhausted};
use rota_core::task::{Completion, State as TaskState};
use rota_core::workflow::{COMPENSATION, State, StepState};

use super::budgets::{daily, learn, limit_agent, limit_namespace, start};
use super::follow_ups::settle;
use super::harness::Harness;
use super::workflow_nested;
use super::workflow_run::{Run, create, failed, ok, step, workflow};
use crate::{Action, Refused, WorkflowCommand};

const SPENT: i64 = 100;

fn refuse() -> Budget {
    Budget { when_exhausted: WhenExhausted::Refuse, ..daily(SPENT) }
}

/// Spends the budgets of the agent and of its namespace, which refuse new tasks.
async fn spend(t: &mut Harness) {
    let worker = start(t, Budget::default(), Budget::default()).await;
    learn(t, &worker, SPENT).await;
    limit(t, refuse()).await;
    let new = t.task();
    let refused = t.one(crate::Command::Create(Box::new(new))).await;
    assert!(matches!(refused, Err(Refused::BudgetSpent(_))), "{refused:?}");
}

async fn limit(t: &mut Harness, budget: Budget) {
    limit_agent(t, budget).await;
    limit_namespace(t, budget).await;
}

/// Checks that the last task of a step waits for a budget, and ends it while there is no limit.
async fn wait_and_end(run: &mut Run<'_>, step: u32, completion: Completion) {
    assert_eq!(run.end(9, completion.clone()).await.len(), 0);
    let task = run.step(step).await.last_task.expect("it has a task");
    let waiting = run.t.read(task).await;
    assert_eq!((waiting.state, waiting.budget_wait.is_some()), (TaskState::Pending, true));
    limit(run.t, Budget::default()).await;
    settle(run.t).await;
    let ended: Vec<_> = run.end(9, completion).await.iter().map(|task| task.id).collect();
    assert_eq!(ended, [task]);
    limit(run.t, refuse()).await;
}

pub async fn accepted_steps_wait_for_spent_budgets(t: &mut Harness) {
    let mut steps = vec![step("one", &[]), step("bad", &[0]), step("clean", &[])];
    (steps[0].step.compensates, steps[2].step.finally) = (true, true);
    let mut given = workflow(steps);
    given.workflow.compensates = true;
    let mut run = Run::new(t, given, false).await;
    run.run(0, ok("1")).await;
    spend(run.t).await;
    run.start(1, 1, 1, 1, 0).await.unwrap();
    wait_and_end(&mut run, 1, failed()).await;
    assert_eq!(run.workflow().await.state, State::Compensating);
    let create = run.tasks(0, COMPENSATION, 0..1).remove(0);
    run.drive(0, Action::Compensate(Box::new(create))).await.unwrap();
    wait_and_end(&mut run, 0, ok("undone")).await;
    assert_eq!(run.step(0).await.compensation, Some(StepState::Succeeded));
    assert_eq!(run.workflow().await.state, State::Finalizing);
    run.start(2, 1, 1, 1, 0).await.unwrap();
    wait_and_end(&mut run, 2, ok("clean")).await;
    assert_eq!((run.workflow().await.state, run.step(2).await.state), (State::Failed, StepState::Succeeded));
}

pub async fn spent_budget_refuses_new_workflows(t: &mut Harness) {
    let mut run = Run::new(t, workflow_nested::around(), false).await;
    spend(run.t).await;
    let mut new = workflow(vec![step("a", &[])]);
    new.workflow.id = rota_core::WorkflowId(uuid::Uuid::from_u128(2));
    let refused = run.apply(WorkflowCommand::Create(Box::new(new.clone()))).await;
    let Err(Refused::BudgetSpent(wait)) = refused else { panic!("not refused: {refused:?}") };
    assert_eq!(wait.scope, Scope::Namespace);
    // One that was accepted is returned, and may create those that are its steps.
    let (again, created) = create(run.t, workflow_nested::around()).await;
    assert_eq!((again.key, created), (run.key(), false));
    let nested = workflow_nested::inner(&again, 0, rota_core::workflow::Kind::Task);
    run.drive(0, workflow_nested::start(vec![nested], 1)).await.unwrap();
    assert_eq!((run.step(0).await.state, run.driven().await), (StepState::Running, vec![0]));
    // Which agents a new one needs is not known.
    limit_namespace(run.t, Budget::default()).await;
    assert!(create(run.t, new).await.1);
}
