//! Claims.

use std::collections::BTreeSet;
use std::time::Duration;

use rota_core::rank::Priority;
use rota_core::target::Target;
use rota_core::task::{self, State, WorkerRef};
use rota_core::{AgentName, TaskId};

use super::harness::{Harness, attempt_of, delete_agent, make, namespace, session, to_agent};
use crate::{Claim, Command, Refused, Reply};

pub async fn best_rank_is_first_over_routes(t: &mut Harness) {
    t.agent("a").await;
    let words = Target::Capabilities(["code".to_owned()].into());
    let plan = [
        (to_agent("a"), Priority::NORMAL),
        (words.clone(), Priority::URGENT),
        (to_agent("a"), Priority::LOW),
        (words.clone(), Priority::NORMAL),
        (to_agent("a"), Priority::HIGH),
    ];
    let mut ids = Vec::new();
    for (target, priority) in plan {
        t.later(Duration::from_millis(1));
        let mut create = t.task();
        (create.task.target, create.task.priority) = (target, priority);
        ids.push(t.create(create).await.id);
    }
    let routes = vec![t.route(to_agent("a")).await, t.route(words).await];
    let worker = t.hello("w").await;
    let mut given = Vec::new();
    for slots in [2, 0, 2, 5] {
        let tasks = t.claim_from(&worker, routes.clone(), slots).await;
        assert!(tasks.len() <= slots);
        given.extend(tasks.iter().map(|task| task.id));
    }
    assert_eq!(given, [1, 4, 0, 3, 2].map(|index| ids[index]));
}

pub async fn task_is_claimed_once(t: &mut Harness) {
    t.agent("a").await;
    for _ in 0..5 {
        t.plain().await;
    }
    let (one, two) = (t.hello("w1").await, t.hello("w2").await);
    let route = t.route(to_agent("a")).await;
    let claim = |by: &task::WorkerRef| {
        let (namespace, worker) = (namespace("n"), by.clone());
        Command::Claim(Claim {
            namespace,
            worker,
            routes: vec![route, route],
            shared: Vec::new(),
            slots: 2,
            probes: None,
            not_isolating: Default::default(),
        })
    };
    let replies = t.batch(vec![claim(&one), claim(&two), claim(&one)]).await;
    let counts: Vec<_> = replies.iter().map(|reply| matches!(reply, Ok(Reply::Claimed(2)))).collect();
    assert_eq!(counts, [true, true, false]);
    assert!(matches!(replies[2], Ok(Reply::Claimed(1))));
    let commit = t.commits.last().unwrap();
    let ids: BTreeSet<_> = commit.tasks.iter().map(|change| change.task.id).collect();
    assert_eq!((commit.tasks.len(), ids.len()), (5, 5));
    for change in &commit.tasks {
        assert_eq!((change.task.fence.0, change.events.len()), (1, 1));
        assert!(change.dispatch.is_some());
    }
    t.reopen().await;
    assert_eq!(t.claim(&one, 5).await.len(), 0);
}

pub async fn tasks_of_same_batch_are_claimable(t: &mut Harness) {
    t.agent("a").await;
    let old = t.plain().await;
    t.later(Duration::from_millis(1));
    let worker = t.hello("w").await;
    let route = t.route(to_agent("a")).await;
    let (mut low, mut high) = (t.task(), t.task());
    low.task.priority = Priority::LOW;
    high.task.priority = Priority::HIGH;
    let ids = [high.task.id, old.id, low.task.id];
    let claim = |slots| {
        let (namespace, worker) = (namespace("n"), worker.clone());
        Command::Claim(Claim {
            namespace,
            worker,
            routes: vec![route],
            shared: Vec::new(),
            slots,
            probes: None,
            not_isolating: Default::default(),
        })
    };
    t.batch(vec![make(low), make(high), claim(2), claim(2)]).await;
    for (fence, id) in [1, 1, 1].into_iter().zip(ids) {
        let change = t.last_change(id);
        assert_eq!((change.task.state, change.task.fence.0), (State::Assigned, fence));
    }
    assert_eq!(t.last_change(ids[0]).before, None);
    assert_eq!(t.last_change(ids[1]).before, Some(State::Queued));
}

pub async fn only_newest_session_claims(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let route = t.route(to_agent("a")).await;
    let old = t.hello("w").await;
    let new = t.hello("w").await;
    for by in [old, session("w", new.epoch.0 + 1), session("x", 1)] {
        let claim = Claim {
            namespace: namespace("n"),
            worker: by,
            routes: vec![route],
            shared: Vec::new(),
            probes: None,
            not_isolating: Default::default(),
            slots: 1,
        };
        assert_eq!(t.one(Command::Claim(claim)).await.unwrap_err(), Refused::Superseded);
    }
    assert_eq!(t.claim(&new, 1).await.len(), 1);
}

pub async fn claims_never_cross_namespaces(t: &mut Harness) {
    let mut create = t.task();
    create.task.namespace = namespace("m");
    create.task.target = Target::Capabilities(BTreeSet::new());
    let task = t.create(create).await;
    assert_eq!(task.state, State::Queued);
    let route = t.last_change(task.id).route;
    let worker = t.hello("w").await;
    assert_eq!(t.claim_from(&worker, vec![route], 1).await.len(), 0);
    let accept = task::Command::TICK;
    assert_eq!(t.ask(task.id, accept).await.unwrap_err(), Refused::NoTask(task.id));
}

pub async fn priority_update_applies_immediately(t: &mut Harness) {
    t.agent("a").await;
    let first = t.plain().await;
    let second = t.plain().await;
    let raise = task::Command::Update {
        priority: Some(Priority::URGENT),
        labels: None,
        desired: None,
        reason: "now".to_owned(),
    };
    t.ask(second.id, raise).await.unwrap();
    let worker = t.hello("w").await;
    assert_eq!(t.claim(&worker, 1).await[0].id, second.id);
    assert_eq!(t.claim(&worker, 1).await[0].id, first.id);
}

pub async fn isolated_task_has_its_own_route(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    let id = create.task.id;
    create.task.target = own(id);
    let task = t.create(create).await;
    assert_eq!((task.state, task.agent().map(ToString::to_string)), (State::Queued, Some("a".to_owned())));
    let shared = t.plain().await;
    // It follows its agent like any other task.
    t.one(delete_agent("a")).await.unwrap();
    assert_eq!((t.state(id).await, t.state(shared.id).await), (State::Pending, State::Pending));
    t.agent("a").await;
    assert_eq!(t.state(id).await, State::Queued);
    // The agent's route does not contain it.
    let worker = t.hello("w").await;
    let given = t.claim(&worker, 9).await;
    assert_eq!(given.iter().map(|task| task.id).collect::<Vec<_>>(), [shared.id]);
    let route = t.route(own(id)).await;
    let worker = t.hello("own").await;
    let given = t.claim_from(&worker, vec![route], 9).await;
    assert_eq!(given.iter().map(|task| task.id).collect::<Vec<_>>(), [id]);
    // Its route is kept while it runs.
    t.later(Duration::from_secs(1));
    t.prune(t.now(), 9).await;
    let routes = t.store.snapshot().await.unwrap().routes;
    assert!(routes.iter().any(|(_, route)| route.target.is_own()), "{routes:?}");
    // The route is removed with the task.
    t.succeed(&given[0]).await;
    t.later(Duration::from_secs(1));
    assert!(t.prune(t.now(), 9).await > 0);
    for _ in 0..2 {
        let routes = t.store.snapshot().await.unwrap().routes;
        assert!(routes.iter().all(|(_, route)| !route.target.is_own()), "{routes:?}");
        t.reopen().await;
    }
    let mut again = t.task();
    again.task.target = own(again.task.id);
    assert_eq!(t.create(again).await.state, State::Queued);
}

fn own(id: TaskId) -> Target {
    Target::Task { id, agent: AgentName::new("a").unwrap() }
}

/// A claim that finds nothing publishes how many tasks are ready, so that a reader can correct its count.
pub async fn empty_claim_reports_queue(h: &mut Harness) {
    h.agent("a").await;
    let worker = h.hello("w").await;
    h.plain().await;
    assert_eq!(h.claim(&worker, 3).await.len(), 1);
    assert!(h.commits.iter().all(|commit| commit.queue_counts.is_empty()));
    let route = h.route(to_agent("a")).await;
    assert_eq!(h.claim(&worker, 3).await.len(), 0);
    assert_eq!(h.commits.last().unwrap().queue_counts, [(route, 0)]);
}

pub async fn worker_is_passed_over_by_tasks_that_avoid_it(t: &mut Harness) {
    t.agent("a").await;
    let sick = t.hello("sick").await;
    let first = t.plain().await;
    let route = t.route(rota_core::target::Target::Agent("a".parse().unwrap())).await;
    let rejected = t.claim(&sick, 1).await.remove(0);
    assert_eq!(rejected.id, first.id);
    let reject = task::Command::Reject { attempt: attempt_of(&rejected), reason: "no disk".to_owned() };
    t.ask(first.id, reject).await.unwrap();
    let claim = |worker: &WorkerRef, shared| {
        let (namespace, worker) = (namespace("n"), worker.clone());
        Command::Claim(Claim {
            namespace,
            worker,
            routes: vec![route],
            shared,
            slots: 1,
            probes: None,
            not_isolating: Default::default(),
        })
    };
    assert!(matches!(t.one(claim(&sick, vec![route])).await, Ok(Reply::PassedOver)));
    // A task behind it does not avoid the worker.
    let second = t.plain().await;
    assert!(matches!(t.one(claim(&sick, vec![route])).await, Ok(Reply::Claimed(1))));
    assert_eq!([t.state(first.id).await, t.state(second.id).await], [State::Queued, State::Assigned]);
    // Without another worker, the same one is tried again.
    assert!(matches!(t.one(claim(&sick, Vec::new())).await, Ok(Reply::Claimed(1))));
    let again = t.read(first.id).await;
    assert_eq!(again.state, State::Assigned);
    // Another worker may be busy for hours: the same one is tried again after a while.
    let reject = task::Command::Reject { attempt: attempt_of(&again), reason: "no disk".to_owned() };
    t.ask(first.id, reject).await.unwrap();
    t.later(Duration::from_secs(60));
    t.one(Command::tick(10)).await.unwrap();
    assert!(matches!(t.one(claim(&sick, vec![route])).await, Ok(Reply::PassedOver)));
    t.later(Duration::from_secs(30));
    assert!(matches!(t.one(claim(&sick, vec![route])).await, Ok(Reply::Claimed(1))));
}

pub async fn any_of_several_agents_claims(t: &mut Harness) {
    t.agent("a").await;
    let several = Target::Agents(["a", "b"].map(|name| AgentName::new(name).unwrap()).into());
    let mut create = t.task();
    create.task.target = several.clone();
    let id = t.create(create).await.id;
    t.reopen().await;
    let route = t.route(several.clone()).await;
    let worker = t.hello("w").await;
    let tasks = t.claim_from(&worker, vec![route], 2).await;
    assert_eq!(tasks.iter().map(|task| (task.id, &task.target)).collect::<Vec<_>>(), [(id, &several)]);
    t.succeed(&tasks[0]).await;
    assert_eq!(t.state(id).await, State::Succeeded);
}
