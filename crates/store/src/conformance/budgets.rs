//! Budgets of agents and namespaces: books that are kept with the usage, reservations, and waits.

use std::sync::Arc;
use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::spending::{Account, Budget, Period, Scope, WhenExhausted};
use rota_core::task::{self, Completion, EventEffect, Item, State, Task, WorkerRef};
use rota_core::usage::Usage;
use rota_core::{AgentName, TaskId, Timestamp};

use super::harness::{Harness, attempt_of, namespace, put_agent};
use crate::{Command, Refused, Reply};

const DAY: Duration = Duration::from_hours(24);

pub(super) fn daily(limit: i64) -> Budget {
    Budget { daily: Some(limit), ..Budget::default() }
}

pub(super) async fn limit_agent(t: &mut Harness, budget: Budget) {
    let Command::PutAgent(mut put) = put_agent("a", "v1", None) else { panic!("no agent") };
    put.agent.budget = budget;
    t.one(Command::PutAgent(put)).await.unwrap();
}

pub(super) async fn limit_namespace(t: &mut Harness, budget: Budget) {
    match t.one(Command::PutBudget { namespace: namespace("n"), budget, expected: None }).await {
        Ok(Reply::Account(account)) => assert_eq!(account.budget, budget),
        other => panic!("no account: {other:?}"),
    }
}

pub(super) async fn several(t: &mut Harness, count: usize) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        t.later(Duration::from_millis(1));
        ids.push(t.plain().await.id);
    }
    ids
}

fn cost(cost_micro_usd: i64) -> Usage {
    Usage { cost_micro_usd, ..Usage::default() }
}

pub(super) async fn spend(t: &mut Harness, task: &Task, first: u64, total: i64) {
    let items = vec![Item { at: t.now(), payload: "used".into(), effect: EventEffect::Usage(cost(total)) }];
    let report = task::Command::Report { attempt: attempt_of(task), first, items };
    t.ask(task.id, report).await.unwrap();
}

pub(super) async fn end(t: &mut Harness, task: &Task, total: i64, completion: Completion) {
    let attempt = attempt_of(task);
    let (usage, session, jitter) = (Some(cost(total)), String::new(), 0.5);
    t.ask(task.id, task::Command::Finish { attempt, last: 0, completion, usage, session, jitter })
        .await
        .unwrap();
}

pub(super) async fn succeed(t: &mut Harness, task: &Task, total: i64) {
    end(t, task, total, Completion::Succeeded(None)).await;
}

pub(super) async fn account(t: &Harness, scope: Scope) -> Account {
    let accounts = t.store.snapshot().await.unwrap().accounts;
    accounts.into_iter().find(|account| account.scope == scope).expect("no account")
}

pub(super) fn agent() -> Scope {
    Scope::Agent(AgentName::new("a").unwrap())
}

/// Returns what is spent today by the agent, and in its namespace.
async fn spent(t: &Harness) -> [i64; 2] {
    let now = t.now();
    [account(t, agent()).await, account(t, Scope::Namespace).await].map(|one| one.spent(Period::Day, now))
}

pub(super) async fn start(t: &mut Harness, agent: Budget, all: Budget) -> WorkerRef {
    limit_agent(t, agent).await;
    limit_namespace(t, all).await;
    t.hello("w").await
}

pub(super) async fn claim(t: &mut Harness, worker: &WorkerRef, slots: usize) -> Vec<Arc<Task>> {
    t.claim(worker, slots).await
}

fn tomorrow(t: &Harness) -> Timestamp {
    Period::Day.end(t.now())
}

/// Lets an agent learn what its attempts usually cost.
pub(super) async fn learn(t: &mut Harness, worker: &WorkerRef, usual: i64) {
    t.plain().await;
    let task = claim(t, worker, 1).await.remove(0);
    succeed(t, &task, usual).await;
}

pub async fn books_are_kept_with_the_usage(t: &mut Harness) {
    let worker = start(t, Budget::default(), Budget::default()).await;
    t.plain().await;
    let task = claim(t, &worker, 1).await.remove(0);
    spend(t, &task, 1, 30).await;
    assert_eq!(spent(t).await, [30, 30]);
    let commit = t.commits.last().unwrap();
    assert_eq!((commit.usage[0].usage.cost_micro_usd, commit.accounts.len()), (30, 2));
    t.reopen().await;
    assert_eq!(spent(t).await, [30, 30]);
    let (worker, _) = t.hello_again("w", "process 1", vec![(task.id, task.fence)]).await;
    let task = Task { assignment: t.read(task.id).await.assignment, ..Task::clone(&task) };
    spend(t, &task, 2, 50).await;
    end(t, &task, 70, Completion::Failed(Failure::new(Class::Agent, "no"))).await;
    assert_eq!(spent(t).await, [70, 70]);
    assert_eq!(account(t, agent()).await.usual, 70);
    // What a superseded attempt reports late counts too.
    t.later(Duration::from_secs(60));
    t.tick().await;
    let again = claim(t, &worker, 1).await.remove(0);
    let late = task::Command::Report {
        attempt: attempt_of(&task),
        first: 3,
        items: vec![Item { at: t.now(), payload: "late".into(), effect: EventEffect::Usage(cost(75)) }],
    };
    t.ask(task.id, late).await.unwrap();
    succeed(t, &again, 5).await;
    assert_eq!(spent(t).await, [80, 80]);
    t.later(DAY);
    assert_eq!(spent(t).await, [0, 0]);
}

pub async fn tasks_beyond_a_budget_wait_for_the_next_day(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    learn(t, &worker, 30).await;
    let ids = several(t, 20).await;
    // 30 are spent, and two more attempts fit.
    let given = claim(t, &worker, 20).await;
    assert_eq!(given.iter().map(|task| task.id).collect::<Vec<_>>(), ids[..2]);
    let last = t.commits.last().unwrap();
    let reserved = |scope: Scope| {
        let change = last.accounts.iter().find(|change| change.account.scope == scope);
        change.map(|change| change.reserved)
    };
    assert_eq!((reserved(agent()), reserved(Scope::Namespace)), (Some(60), Some(60)));
    for id in &ids[2..] {
        let task = t.read(*id).await;
        let wait = task.budget_wait.as_ref().expect("it waits");
        assert_eq!((task.state, wait.scope.clone(), wait.period), (State::Pending, agent(), Period::Day));
        assert_eq!(task.retry_at, Some(tomorrow(t)));
    }
    // A restart remembers what is reserved. A new task waits too, although a slot is free.
    t.reopen().await;
    let named = given.iter().map(|task| (task.id, task.fence)).collect();
    let (worker, _) = t.hello_again("w", "process 1", named).await;
    let mut create = t.task();
    create.offer = Some(worker.clone());
    assert_eq!(t.create(create).await.state, State::Pending);
    // An attempt that costs less than usual leaves room for others, one that costs as much does not.
    let [cheap, dear] = [0, 1].map(|at| given[at].id);
    let live = async |t: &Harness, id| t.read(id).await;
    let task = live(t, cheap).await;
    succeed(t, &task, 6).await;
    let more = claim(t, &worker, 20).await;
    assert_eq!(more.iter().map(|task| task.id).collect::<Vec<_>>(), ids[2..3], "27 are usual now");
    let task = live(t, dear).await;
    succeed(t, &task, 30).await;
    assert_eq!(claim(t, &worker, 20).await.len(), 0);
    t.commits.clear();
    let end = tomorrow(t).since(t.now());
    t.later(end);
    assert_eq!(t.tick().await, 18 + 1);
    let given = claim(t, &worker, 20).await;
    assert_eq!(
        given.iter().map(|task| task.id).collect::<Vec<_>>(),
        ids[2..5],
        "one was not accepted in time"
    );
}

pub async fn namespace_limits_all_its_agents(t: &mut Harness) {
    let monthly = Budget { monthly: Some(100), ..Budget::default() };
    let worker = start(t, daily(1000), monthly).await;
    learn(t, &worker, 90).await;
    let ids = several(t, 3).await;
    assert_eq!(claim(t, &worker, 3).await.len(), 0);
    let wait = t.read(ids[0]).await.budget_wait.unwrap();
    assert_eq!((wait.scope, wait.period), (Scope::Namespace, Period::Month));
    assert_eq!(wait.until, Period::Month.end(t.now()));
    // More money wakes them immediately, in pieces of a commit.
    limit_namespace(t, Budget { monthly: Some(1000), ..Budget::default() }).await;
    t.batch(Vec::new()).await;
    assert_eq!(claim(t, &worker, 3).await.len(), 3);
    // None at all, too.
    limit_agent(t, daily(1)).await;
    let waits = several(t, 1).await;
    assert_eq!(claim(t, &worker, 1).await.len(), 0);
    assert_eq!(t.read(waits[0]).await.state, State::Pending);
    limit_agent(t, Budget::default()).await;
    t.batch(Vec::new()).await;
    assert_eq!(claim(t, &worker, 1).await.len(), 1);
}

pub async fn reached_limit_stops_running_attempts(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    several(t, 3).await;
    // Nothing is known of their cost, hence all of them run.
    let given = claim(t, &worker, 3).await;
    assert_eq!(given.len(), 3);
    for report in 1..=7 {
        spend(t, &given[0], report, 10 * i64::try_from(report).unwrap()).await;
    }
    let notices = async |t: &Harness, id| {
        let log = t.log(id).await.into_iter();
        let codes = log.filter_map(|event| match event.body {
            task::Body::Notice { code, .. } => Some(code.into_owned()),
            _ => None,
        });
        codes.collect::<Vec<_>>()
    };
    assert!(notices(t, given[0].id).await.is_empty());
    spend(t, &given[1], 1, 10).await;
    assert_eq!(notices(t, given[1].id).await, ["budget_nearly_spent"]);
    spend(t, &given[0], 8, 91).await;
    for task in &given {
        let now = t.read(task.id).await;
        assert!(now.assignment.as_ref().unwrap().stopping.is_some(), "it is not stopped");
        end(t, task, 0, Completion::Stopped { by: "interrupt".to_owned() }).await;
        let ended = t.read(task.id).await;
        assert_eq!((ended.state, ended.failures, ended.retry_at), (State::Pending, 0, Some(tomorrow(t))));
    }
    assert_eq!(spent(t).await, [101, 101]);
    // Later on the same day there is still none. More money wakes all of them.
    several(t, 1).await;
    assert_eq!(claim(t, &worker, 9).await.len(), 0);
    limit_agent(t, daily(1000)).await;
    assert_eq!(claim(t, &worker, 9).await.len(), 4);
}

pub async fn exhausted_budget_can_refuse_tasks(t: &mut Harness) {
    let refuse = Budget { when_exhausted: WhenExhausted::Refuse, ..daily(100) };
    let worker = start(t, refuse, Budget::default()).await;
    several(t, 2).await;
    let given = claim(t, &worker, 2).await;
    let queued = t.plain().await.id;
    succeed(t, &given[0], 60).await;
    let create = t.task();
    assert!(t.one(Command::Create(Box::new(create.clone()))).await.is_err(), "60 are usual, and 40 are left");
    succeed(t, &given[1], 40).await;
    let refused = t.one(Command::Create(Box::new(create))).await;
    let Err(Refused::BudgetSpent(wait)) = refused else { panic!("not refused: {refused:?}") };
    assert_eq!((wait.period, wait.until), (Period::Day, tomorrow(t)));
    assert_eq!(claim(t, &worker, 2).await.len(), 0);
    assert_eq!(t.read(queued).await.state, State::Pending, "it was accepted before");
    t.later(DAY);
    t.plain().await;
}

pub async fn long_queue_waits_in_pieces(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    learn(t, &worker, 100).await;
    let ids = several(t, 600).await;
    t.commits.clear();
    for _ in 0..4 {
        assert_eq!(claim(t, &worker, 2).await.len(), 0);
    }
    assert!(t.commits.iter().all(|commit| commit.tasks.len() <= 258), "no commit looks at all of them");
    assert_eq!(t.read(ids[599]).await.state, State::Pending);
    // Room for a few wakes a few.
    limit_agent(t, daily(250)).await;
    for _ in 0..8 {
        t.batch(Vec::new()).await;
    }
    let given = claim(t, &worker, 9).await;
    assert_eq!(given.iter().map(|task| task.id).collect::<Vec<_>>(), ids[..1]);
    for _ in 0..4 {
        assert_eq!(claim(t, &worker, 9).await.len(), 0);
    }
    t.commits.clear();
    succeed(t, &given[0], 1).await;
    assert!(t.commits.iter().all(|commit| commit.tasks.len() <= 17));
    assert_eq!(claim(t, &worker, 9).await.len(), 1);
}
