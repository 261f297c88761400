//! Turns that running attempts may still spend near a limit: which attempts are charged one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rota_core::TaskId;
use rota_core::spending::{Budget, Period};
use rota_core::task::{self, Completion, EventEffect, Item, State};
use rota_core::usage::Usage;

use super::budget_waits::{claim_of, other_agent};
use super::budgets::{account, agent, claim, daily, several, spend, start, succeed};
use super::harness::{Harness, attempt_of, namespace, to_agent};
use crate::{Claim, Command, Reply};

async fn create_free(t: &mut Harness) -> TaskId {
    let mut create = t.task();
    create.task.target = to_agent("b");
    t.create(create).await.id
}

async fn is_stopping(t: &Harness, id: TaskId) -> bool {
    t.read(id).await.assignment.expect("it does not run").stopping.is_some()
}

/// The clock was set back over midnight: the wait would end before the task was created.
pub async fn task_of_tomorrow_is_passed_over(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    several(t, 1).await;
    let given = claim(t, &worker, 1).await;
    spend(t, &given[0], 1, 101).await;
    succeed(t, &given[0], 101).await;
    let midnight = Period::Day.end(t.now()).0;
    t.clock.store(midnight + 300_000_000, Ordering::Relaxed);
    let id = several(t, 1).await.remove(0);
    t.clock.store(midnight - 120_000_000, Ordering::Relaxed);
    let routes = vec![t.route(to_agent("a")).await];
    let (namespace, shared, not_isolating) = (namespace("n"), Vec::new(), Arc::default());
    let claim = Claim { namespace, worker, routes, shared, slots: 1, probes: None, not_isolating };
    // Not one to be repeated immediately, which would find the same.
    assert!(matches!(t.one(Command::Claim(claim)).await, Ok(Reply::PassedOver)));
    assert_eq!(t.read(id).await.state, State::Queued);
}

pub async fn free_attempts_take_no_budget(t: &mut Harness) {
    let worker = start(t, Budget::default(), daily(100)).await;
    let other = other_agent(t, Budget::default()).await;
    let mut free = Vec::new();
    for _ in 0..10 {
        free.push(create_free(t).await);
    }
    assert_eq!(claim_of(t, &other, to_agent("b"), 10).await.len(), 10);
    several(t, 1).await;
    let paid = claim(t, &worker, 1).await.remove(0);
    spend(t, &paid, 1, 10).await;
    assert!(!is_stopping(t, paid.id).await, "90 of 100 are left, and the others cost nothing");
    let eleventh = create_free(t).await;
    assert_eq!(claim_of(t, &other, to_agent("b"), 1).await, [eleventh]);
    let second = several(t, 1).await;
    assert_eq!(claim_of(t, &worker, to_agent("a"), 1).await, second);
    // Those that report a cost are charged from then on, with all of their agent, also those that began before.
    let first = t.read(free[0]).await;
    spend(t, &first, 1, 10).await;
    assert!(is_stopping(t, first.id).await, "80 are left, and the 12 others take a turn of 10");
    create_free(t).await;
    assert_eq!(claim_of(t, &other, to_agent("b"), 1).await, []);
    // A restart counts the same.
    t.reopen().await;
    t.hello_again("w", "process 1", vec![(paid.id, paid.fence)]).await;
    let paid = t.read(paid.id).await;
    spend(t, &paid, 2, 11).await;
    assert!(is_stopping(t, paid.id).await);
}

pub async fn waiting_attempts_begin_no_turn(t: &mut Harness) {
    let worker = start(t, Budget::default(), daily(100)).await;
    several(t, 2).await;
    let given = claim(t, &worker, 2).await;
    let asked = EventEffect::InputRequested { request: "q".to_owned(), payload: Bytes::from_static(b"?") };
    let items = vec![Item { at: t.now(), payload: Bytes::from_static(b"event"), effect: asked }];
    let report = task::Command::Report { attempt: attempt_of(&given[1]), first: 1, items };
    t.ask(given[1].id, report).await.unwrap();
    assert_eq!(t.state(given[1].id).await, State::InputRequired);
    spend(t, &given[0], 1, 60).await;
    assert!(!is_stopping(t, given[0].id).await, "the other one waits");
    let payload = Bytes::from_static(b"yes");
    let answer = task::Command::GiveInput { request: "q".to_owned(), payload, grant: None };
    t.ask(given[1].id, answer).await.unwrap();
    spend(t, &given[0], 2, 61).await;
    assert!(is_stopping(t, given[0].id).await, "39 are left, and the other one continues");
}

/// Nothing was spent or limited before in the namespace.
pub async fn first_report_counts_the_other_attempts(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    several(t, 2).await;
    let given = claim(t, &worker, 2).await;
    assert!(t.store.snapshot().await.unwrap().accounts.is_empty());
    spend(t, &given[0], 1, 60).await;
    assert!(is_stopping(t, given[0].id).await, "40 are left, and the other one takes a turn of 60");
}

/// A worker that comes back after an outage reports several turns at the same time.
pub async fn late_reports_are_several_turns(t: &mut Harness) {
    let worker = start(t, Budget::default(), daily(60)).await;
    several(t, 10).await;
    let given = claim(t, &worker, 10).await;
    assert_eq!(given.len(), 10);
    let used = |total| EventEffect::Usage(Usage { cost_micro_usd: total, ..Usage::default() });
    let items =
        (1..=10).map(|total| Item { at: t.now(), payload: "used".into(), effect: used(total) }).collect();
    let report = task::Command::Report { attempt: attempt_of(&given[0]), first: 1, items };
    t.ask(given[0].id, report).await.unwrap();
    assert_eq!(account(t, agent()).await.turn, 1);
    for task in &given {
        let now = t.read(task.id).await.assignment.unwrap();
        assert!(now.stopping.is_none(), "50 are left, and the others take 9");
    }
    // Nor are totals at the end a turn, but of an attempt that has reported nothing before.
    let last = 10;
    let (completion, session, jitter) = (Completion::Succeeded(None), String::new(), 0.5);
    let usage = Some(Usage { cost_micro_usd: 15, ..Usage::default() });
    let attempt = attempt_of(&given[0]);
    let end = task::Command::Finish { attempt, last, completion, usage, session, jitter };
    t.ask(given[0].id, end).await.unwrap();
    assert_eq!(account(t, agent()).await.turn, 1);
    succeed(t, &given[1], 3).await;
    assert_eq!(account(t, agent()).await.turn, 3);
}
