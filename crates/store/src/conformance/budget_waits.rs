//! Waits for budgets: who waits for which one, and when they continue.

use std::sync::Arc;
use std::time::Duration;

use rota_core::spending::{Budget, Period, Scope, WhenExhausted};
use rota_core::target::Target;
use rota_core::task::{Completion, Desired, EventEffect, Item, State, Task, WorkerRef};
use rota_core::{AgentName, TaskId, WorkerName};

use super::budgets::{
    account, agent, claim, daily, end, learn, limit_agent, limit_namespace, several, spend, start, succeed,
};
use super::harness::{
    Harness, ask, attempt_of, end_session, namespace, open_session, put_agent, to_agent, want,
};
use crate::{Claim, Command, Reply};

fn stopped() -> Completion {
    Completion::Stopped { by: "interrupt".to_owned() }
}

fn any_with_code() -> Target {
    Target::Capabilities(["code".to_owned()].into())
}

async fn create(t: &mut Harness, target: Target, budget: Option<i64>) -> TaskId {
    t.later(Duration::from_millis(1));
    let mut create = t.task();
    create.task.target = target;
    create.task.limits.budget_micro_usd = budget;
    t.create(create).await.id
}

/// Connects a worker of agent `b`, which can do the same as agent `a`.
pub(super) async fn other_agent(t: &mut Harness, budget: Budget) -> WorkerRef {
    let Command::PutAgent(mut put) = put_agent("b", "v1", None) else { panic!("no agent") };
    put.agent.budget = budget;
    t.one(Command::PutAgent(put)).await.unwrap();
    let Command::OpenSession(mut open) = open_session("w2", "process 1", Vec::new()) else { panic!() };
    open.agent = AgentName::new("b").unwrap();
    match t.one(Command::OpenSession(open)).await {
        Ok(Reply::Session(epoch, _)) => WorkerRef { worker: WorkerName::new("w2").unwrap(), epoch },
        other => panic!("no session: {other:?}"),
    }
}

/// Claims tasks of one target. Returns the tasks that were given.
pub(super) async fn claim_of(t: &mut Harness, by: &WorkerRef, target: Target, slots: usize) -> Vec<TaskId> {
    let route = t.route(target).await;
    let before = t.commits.len();
    let (namespace, worker, routes, shared) = (namespace("n"), by.clone(), vec![route], Vec::new());
    let not_isolating = Arc::default();
    let claim = Claim { namespace, worker, routes, shared, slots, probes: None, not_isolating };
    t.one(Command::Claim(claim)).await.unwrap();
    let changes = t.commits[before..].iter().flat_map(|commit| &commit.tasks);
    changes.filter(|change| change.dispatch.is_some()).map(|change| change.task.id).collect()
}

async fn wait_of(t: &Harness, id: TaskId) -> Option<Scope> {
    let task = t.read(id).await;
    assert_eq!(task.budget_wait.is_some(), task.state == State::Pending, "{:?}", task.state);
    task.budget_wait.map(|wait| wait.scope)
}

pub async fn raised_budget_continues_what_is_being_stopped(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    several(t, 2).await;
    let given = claim(t, &worker, 2).await;
    spend(t, &given[0], 1, 101).await;
    limit_agent(t, daily(1000)).await;
    for task in &given {
        let now = t.read(task.id).await;
        assert!(now.assignment.unwrap().stopping.is_some(), "it is not being stopped");
        end(t, task, 0, stopped()).await;
    }
    assert_eq!(claim(t, &worker, 2).await.len(), 2);
}

pub async fn lost_attempt_returns_under_a_raised_budget(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    let ids = several(t, 2).await;
    let given = claim(t, &worker, 2).await;
    for task in &given {
        let attempt = attempt_of(task);
        let accept = rota_core::task::Command::Accept(attempt);
        t.one(ask(task.id, accept)).await.unwrap();
    }
    spend(t, &given[0], 1, 101).await;
    t.one(end_session(&worker)).await.unwrap();
    let running = async |t: &mut Harness| {
        let named = given.iter().map(|task| (task.id, task.fence)).collect();
        let (worker, _) = t.hello_again("w", "process 1", named).await;
        let mut stopping = Vec::new();
        for id in &ids {
            stopping.push(t.read(*id).await.assignment.map(|live| live.stopping.is_some()));
        }
        (worker, stopping)
    };
    let (worker, stopping) = running(t).await;
    assert_eq!(stopping, [Some(true), Some(true)], "the limit is still reached");
    t.one(end_session(&worker)).await.unwrap();
    limit_agent(t, daily(1000)).await;
    assert_eq!(running(t).await.1, [Some(false), Some(false)]);
}

pub async fn stopped_task_is_left_to_another_agent(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    let rich = other_agent(t, Budget::default()).await;
    let id = create(t, any_with_code(), None).await;
    assert_eq!(claim_of(t, &worker, any_with_code(), 1).await, [id]);
    let task = t.read(id).await;
    spend(t, &task, 1, 101).await;
    end(t, &task, 0, stopped()).await;
    assert_eq!(wait_of(t, id).await, None);
    assert_eq!(claim_of(t, &worker, any_with_code(), 1).await, []);
    assert_eq!(claim_of(t, &rich, any_with_code(), 1).await, [id]);
}

pub async fn task_without_another_agent_waits(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    learn(t, &worker, 100).await;
    let with_unknown = ["a", "unknown"].map(|name| AgentName::new(name).unwrap()).into();
    for target in [Target::Worker(worker.worker.clone()), any_with_code(), Target::Agents(with_unknown)] {
        let id = create(t, target.clone(), None).await;
        assert_eq!(claim_of(t, &worker, target, 1).await, []);
        assert_eq!(wait_of(t, id).await, Some(agent()));
    }
}

pub async fn task_of_agents_without_money_waits(t: &mut Harness) {
    let monthly = Budget { monthly: Some(100), ..Budget::default() };
    let worker = start(t, monthly, Budget::default()).await;
    let other = other_agent(t, daily(100)).await;
    for by in [&worker, &other] {
        let id = create(t, any_with_code(), None).await;
        assert_eq!(claim_of(t, by, any_with_code(), 1).await, [id]);
        let task = t.read(id).await;
        succeed(t, &task, 100).await;
    }
    let id = create(t, any_with_code(), None).await;
    assert_eq!(claim_of(t, &worker, any_with_code(), 1).await, []);
    let first = Scope::Agent(AgentName::new("b").unwrap());
    assert_eq!(wait_of(t, id).await, Some(first), "it has money again before the other");
}

pub async fn dear_task_hides_no_cheaper_one(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    other_agent(t, Budget::default()).await;
    learn(t, &worker, 60).await;
    let mut ids = Vec::new();
    for budget in [None, None, None, Some(5)] {
        ids.push(create(t, any_with_code(), budget).await);
    }
    assert_eq!(claim_of(t, &worker, any_with_code(), 1).await, ids[3..]);
    assert_eq!(t.read(ids[0]).await.state, State::Queued, "it is left to the other agent");
}

pub async fn unknown_cost_starts_alone(t: &mut Harness) {
    let worker = start(t, daily(100), daily(90)).await;
    t.plain().await;
    let task = claim(t, &worker, 1).await.remove(0);
    spend(t, &task, 1, 1).await;
    t.cancel(task.id).await;
    end(t, &task, 1, stopped()).await;
    for _ in 0..3 {
        create(t, to_agent("a"), Some(1000)).await;
    }
    let given = claim(t, &worker, 3).await;
    assert_eq!(given.len(), 1, "the cost of one attempt becomes known first");
    let last = t.commits.last().unwrap();
    assert!(last.accounts.iter().all(|change| change.reserved == 89), "{:?}", last.accounts);
    // What it leaves is enough for two.
    succeed(t, &given[0], 20).await;
    assert_eq!(claim(t, &worker, 3).await.len(), 2);
}

pub async fn dear_budget_reserves_what_is_left(t: &mut Harness) {
    let refuse = Budget { when_exhausted: WhenExhausted::Refuse, ..daily(100) };
    let worker = start(t, refuse, Budget::default()).await;
    let id = create(t, to_agent("a"), Some(i64::MAX)).await;
    assert_eq!(claim(t, &worker, 1).await.len(), 1);
    let reserved = |t: &Harness| t.commits.last().unwrap().accounts[0].reserved;
    assert_eq!(reserved(t), 100, "no more than the limit");
    let task = t.read(id).await;
    spend(t, &task, 1, 60).await;
    assert_eq!(reserved(t), 40);
    create(t, to_agent("a"), Some(i64::MAX)).await;
}

/// Lets three tasks wait while an attempt runs. Returns it, and the others.
async fn three_wait(t: &mut Harness, worker: &WorkerRef) -> (Arc<Task>, Vec<TaskId>) {
    learn(t, worker, 5).await;
    let ids = several(t, 4).await;
    let mut given = claim(t, worker, 4).await;
    assert_eq!(given.len(), 1);
    for id in &ids[1..] {
        assert_eq!(wait_of(t, *id).await, Some(agent()));
    }
    (given.remove(0), ids[1..].to_vec())
}

async fn claimed(t: &mut Harness, worker: &WorkerRef) -> Vec<TaskId> {
    claim(t, worker, 4).await.iter().map(|task| task.id).collect()
}

pub async fn suspended_task_takes_no_room(t: &mut Harness) {
    let worker = start(t, daily(10), Budget::default()).await;
    let (running, waiting) = three_wait(t, &worker).await;
    t.ask(waiting[0], want(Desired::Suspended)).await.unwrap();
    succeed(t, &running, 1).await;
    assert_eq!(claimed(t, &worker).await, waiting[1..2]);
    t.ask(waiting[0], want(Desired::Run)).await.unwrap();
    assert_eq!(t.state(waiting[0]).await, State::Queued);
}

pub async fn unused_room_is_given_again(t: &mut Harness) {
    let worker = start(t, daily(10), Budget::default()).await;
    let (running, waiting) = three_wait(t, &worker).await;
    succeed(t, &running, 1).await;
    assert_eq!(t.state(waiting[0]).await, State::Queued);
    t.cancel(waiting[0]).await;
    assert_eq!(claimed(t, &worker).await, waiting[1..2]);
}

/// Its files may wait for their storage for days.
pub async fn ended_work_reserves_nothing(t: &mut Harness) {
    let worker = start(t, daily(500), Budget::default()).await;
    let ids = [create(t, to_agent("a"), Some(500)).await, create(t, to_agent("a"), Some(500)).await];
    let given = claim(t, &worker, 2).await;
    assert_eq!((given.len(), wait_of(t, ids[1]).await), (1, Some(agent())));
    spend(t, &given[0], 1, 10).await;
    let items =
        vec![Item { at: t.now(), payload: "ended".into(), effect: EventEffect::WorkEnded(Some(true)) }];
    let report = rota_core::task::Command::Report { attempt: attempt_of(&given[0]), first: 2, items };
    t.ask(ids[0], report).await.unwrap();
    let accounts = &t.commits.last().unwrap().accounts;
    assert!(accounts.iter().all(|change| change.reserved == 0), "{accounts:?}");
    assert_eq!(claimed(t, &worker).await, ids[1..]);
    // It follows from the record.
    t.reopen().await;
    let accounts = t.store.snapshot().await.unwrap().accounts;
    assert!(!accounts.is_empty());
    let (worker, _) = t.hello_again("w", "process 1", vec![(ids[0], given[0].fence)]).await;
    assert_eq!(claimed(t, &worker).await, ids[1..], "its assignment never arrived");
}

pub async fn room_is_offered_again_later(t: &mut Harness) {
    let worker = start(t, daily(10), Budget::default()).await;
    let (running, waiting) = three_wait(t, &worker).await;
    succeed(t, &running, 1).await;
    // No worker has taken the first one.
    t.later(Duration::from_secs(61));
    t.tick().await;
    assert_eq!(t.state(waiting[1]).await, State::Queued);
    assert_eq!(wait_of(t, waiting[2]).await, Some(agent()));
    // While an attempt runs its end does that.
    assert_eq!(claimed(t, &worker).await, waiting[..1]);
    t.later(Duration::from_secs(61));
    t.tick().await;
    assert!(wait_of(t, waiting[2]).await.is_some());
}

pub async fn lowered_budget_wakes_nothing(t: &mut Harness) {
    let worker = start(t, daily(100), daily(100)).await;
    learn(t, &worker, 100).await;
    let ids = several(t, 300).await;
    for _ in 0..2 {
        assert_eq!(claim(t, &worker, 1).await.len(), 0);
    }
    t.commits.clear();
    limit_agent(t, daily(50)).await;
    limit_namespace(t, daily(60)).await;
    t.batch(Vec::new()).await;
    assert_eq!(t.commits.iter().map(|commit| commit.tasks.len()).sum::<usize>(), 0);
    assert!(account(t, agent()).await.waiting || account(t, Scope::Namespace).await.waiting);
    // More money wakes all of them.
    limit_agent(t, Budget::default()).await;
    limit_namespace(t, Budget::default()).await;
    for _ in 0..4 {
        t.batch(Vec::new()).await;
    }
    assert_eq!(t.state(ids[299]).await, State::Queued);
}

pub async fn wake_up_gives_what_there_is_room_for(t: &mut Harness) {
    let monthly = |limit| Budget { monthly: Some(limit), ..Budget::default() };
    let worker = start(t, Budget::default(), monthly(100)).await;
    learn(t, &worker, 100).await;
    let ids = several(t, 1500).await;
    for _ in 0..6 {
        assert_eq!(claim(t, &worker, 1).await.len(), 0);
    }
    assert_eq!(wait_of(t, ids[1499]).await, Some(Scope::Namespace));
    t.commits.clear();
    // Room for two, as their agent shows.
    let raised = Command::PutBudget { namespace: namespace("n"), budget: monthly(350), expected: None };
    let wanted = Claim {
        namespace: namespace("n"),
        worker: worker.clone(),
        routes: vec![t.route(to_agent("a")).await],
        shared: Vec::new(),
        slots: 4,
        probes: None,
        not_isolating: Default::default(),
    };
    t.commits.clear();
    let replies = t.batch(vec![raised, Command::Claim(wanted)]).await;
    assert!(matches!(replies[1], Ok(Reply::Claimed(2))), "{replies:?}");
    let changes = t.commits.iter().flat_map(|commit| &commit.tasks);
    let mut given: Vec<_> =
        changes.filter(|change| change.dispatch.is_some()).map(|change| change.task.id).collect();
    for _ in 0..9 {
        given.extend(claimed(t, &worker).await);
        t.batch(Vec::new()).await;
    }
    assert_eq!(given, ids[..2]);
    let changes = t.commits.iter().map(|commit| commit.tasks.len()).sum::<usize>();
    // How many wake up in vain depends on when the writer comes to it, but none does so again and again: those of the first
    // piece twice, since the claim has returned them to the first places before the second piece begins.
    assert!(changes <= 2 * (ids.len() + 256), "{changes} changes of {} tasks", ids.len());
    // The end of an attempt wakes the next ones.
    let task = t.read(given[0]).await;
    succeed(t, &task, 10).await;
    assert_eq!(claimed(t, &worker).await.len(), 1);
}

pub async fn corrected_books_wake_tasks(t: &mut Harness) {
    let worker = start(t, Budget::default(), Budget { monthly: Some(100), ..Budget::default() }).await;
    learn(t, &worker, 5_000_000_000).await;
    let id = t.plain().await.id;
    assert_eq!(claim(t, &worker, 1).await.len(), 0);
    assert_eq!(wait_of(t, id).await, Some(Scope::Namespace));
    for (scope, today, this_month) in [
        (agent(), Some(0), Some(0)),
        (Scope::Namespace, None, Some(99)),
        (Scope::Namespace, Some(7), Some(30)),
    ] {
        let namespace = namespace("n");
        let correct = Command::CorrectAccount { namespace, scope, today, this_month };
        assert!(matches!(t.one(correct).await, Ok(Reply::Account(_))));
    }
    t.reopen().await;
    let (worker, _) = t.hello_again("w", "process 1", Vec::new()).await;
    let (known, now) = (account(t, Scope::Namespace).await, t.now());
    assert_eq!([Period::Day, Period::Month].map(|period| known.spent(period, now)), [7, 30]);
    assert_eq!(account(t, agent()).await.usual, 0, "it is learned again");
    assert_eq!(claim(t, &worker, 1).await.len(), 1);
}

/// Attempts of unknown cost that run concurrently, each in turns of 10.
pub async fn attempts_exceed_a_budget_by_one_turn(t: &mut Harness) {
    let worker = start(t, Budget::default(), daily(95)).await;
    several(t, 6).await;
    let mut running = claim(t, &worker, 4).await;
    assert_eq!(running.len(), 4);
    let (mut report, mut stopped_at, mut reports) = (0, Vec::new(), [0; 4]);
    let first = running.clone();
    while !running.is_empty() {
        let task = running.remove(report % running.len());
        report += 1;
        let own = first.iter().position(|one| one.id == task.id).unwrap();
        reports[own] += 1;
        spend(t, &task, reports[own], 10 * i64::try_from(reports[own]).unwrap()).await;
        let (total, now) = (10 * report, t.read(task.id).await);
        match now.assignment.is_some_and(|live| live.stopping.is_some()) {
            true => stopped_at.push(total),
            false => running.push(task),
        }
    }
    assert_eq!(stopped_at, [70, 80, 90, 100], "each leaves a turn to those that run on");
    // None is to begin before there is room again.
    assert_eq!(claim(t, &worker, 2).await.len(), 0);
    limit_namespace(t, daily(200)).await;
    for (task, reports) in first.iter().zip(reports) {
        end(t, task, 10 * i64::try_from(reports).unwrap(), stopped()).await;
    }
    assert_eq!(claim(t, &worker, 6).await.len(), 6);
}

/// An attempt that was stopped in favor of another one continues with what that leaves.
pub async fn stopped_attempt_continues_with_what_is_left(t: &mut Harness) {
    let worker = start(t, Budget::default(), daily(100)).await;
    several(t, 2).await;
    let given = claim(t, &worker, 2).await;
    spend(t, &given[0], 1, 60).await;
    end(t, &given[0], 60, stopped()).await;
    assert_eq!(wait_of(t, given[0].id).await, Some(Scope::Namespace), "40 are left, and a turn costs 60");
    t.reopen().await;
    let (worker, _) = t.hello_again("w", "process 1", vec![(given[1].id, given[1].fence)]).await;
    assert_eq!(claim(t, &worker, 1).await.len(), 0);
    let other = t.read(given[1].id).await;
    succeed(t, &other, 1).await;
    let again = claim(t, &worker, 1).await;
    assert_eq!(again.iter().map(|task| task.id).collect::<Vec<_>>(), [given[0].id]);
}
