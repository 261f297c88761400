//! Budgets of workflows: what the attempts of their steps reserve.

use rota_core::spending::Scope;
use rota_core::task::{State as TaskState, Task};
use rota_core::workflow::State;

use super::budgets::{learn, succeed};
use super::follow_ups::settle;
use super::harness::Harness;
use super::workflow_run::{Run, step, workflow};
use crate::WorkflowQuery;

async fn task_of(run: &Run<'_>, step: u32) -> Task {
    let (workflow, round) = (run.key(), 1);
    let query = WorkflowQuery::Tasks { workflow, step, round, from: 0, limit: 1, bytes: 1 << 20 };
    run.query(query).await.tasks.remove(0).0
}

/// Starts three steps together, of which two fit into the budget.
pub async fn steps_reserve_of_the_budget_of_their_workflow(t: &mut Harness) {
    let mut given = workflow((0..3).map(|index| step(&format!("s{index}"), &[])).collect());
    (given.workflow.budget_micro_usd, given.workflow.counts_cost) = (Some(150), true);
    let mut run = Run::new(t, given, false).await;
    let worker = run.worker().await;
    learn(run.t, &worker, 60).await;
    for step in 0..3 {
        run.start(step, 1, 1, 1, 0).await.unwrap();
    }
    let running = run.t.claim(&worker, 3).await;
    assert_eq!(running.len(), 2);
    let waiting = task_of(&run, 2).await;
    assert_eq!(waiting.state, TaskState::Pending);
    assert_eq!(waiting.budget_wait.map(|wait| wait.scope), Some(Scope::Workflow(run.key())));
    // The other one may still need all that is left.
    succeed(run.t, &running[0], 60).await;
    settle(run.t).await;
    assert_eq!(run.t.claim(&worker, 3).await.len(), 0);
    succeed(run.t, &running[1], 60).await;
    settle(run.t).await;
    let last = run.t.claim(&worker, 3).await;
    assert_eq!(last.len(), 1, "what runs alone may use what is left");
    assert_eq!(last[0].assignment.as_ref().map(|assignment| assignment.reserved), Some(30));
    succeed(run.t, &last[0], 20).await;
    let ended = run.workflow().await;
    assert_eq!((ended.state, ended.cost_micro_usd), (State::Succeeded, 140));
    let accounts = run.t.store.snapshot().await.unwrap().accounts;
    assert!(accounts.iter().all(|account| !matches!(account.scope, Scope::Workflow(_))));
}
