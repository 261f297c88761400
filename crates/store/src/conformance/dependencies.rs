//! Dependencies between tasks.

use std::time::Duration;

use bytes::Bytes;
use rota_core::failure::{Class, Failure};
use rota_core::task::{Completion, DependencyKey, DependencyState, OnFailure, State};

use super::harness::{Harness, ask, attempt_of, depend, finish, make, namespace, on, on_alias, to_agent};
use crate::{Claim, Command};

/// Claims and completes tasks until none is ready.
async fn work_off(t: &mut Harness, worker: &rota_core::task::WorkerRef) -> usize {
    let mut done = 0;
    loop {
        let given = t.claim(worker, 10).await;
        if given.is_empty() {
            return done;
        }
        for task in given {
            t.succeed(&task).await;
            done += 1;
        }
    }
}

pub async fn dependencies_in_any_creation_order(t: &mut Harness) {
    t.agent("a").await;
    let (mut first, mut middle, mut last) = (t.task(), t.task(), t.task());
    middle.task.dependencies = vec![on(first.task.id)];
    last.task.dependencies = vec![on(first.task.id), on(middle.task.id)];
    let ids = [first.task.id, middle.task.id, last.task.id];
    first.task.title = "first".to_owned();
    // The last is created first, the middle one in a batch with its dependency.
    let last = t.create(last).await;
    assert_eq!((last.state, last.dependencies[0].state), (State::Pending, DependencyState::Missing));
    t.batch(vec![make(middle), make(first)]).await;
    assert_eq!(t.read(ids[2]).await.dependencies[0].state, DependencyState::Waiting(ids[0]));
    let worker = t.hello("w").await;
    for id in ids {
        let given = t.claim(&worker, 10).await;
        assert_eq!(given.iter().map(|task| task.id).collect::<Vec<_>>(), [id]);
        t.succeed(&given[0]).await;
    }
    let late = t.after(ids.map(on).to_vec());
    assert_eq!(t.create(late).await.state, State::Queued, "all that it waits for is over");
}

pub async fn alias_resolves_to_newest_at_creation(t: &mut Harness) {
    t.agent("a").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut create = t.task();
        create.task.alias = Some("build".to_owned());
        ids.push(t.create(create).await.id);
    }
    let waiter = t.after(vec![on_alias("build")]);
    let waiter = t.create(waiter).await;
    let mut third = t.task();
    third.task.alias = Some("build".to_owned());
    let third = t.create(third).await;
    assert_eq!(t.read(waiter.id).await.dependencies[0].state, DependencyState::Waiting(ids[1]));
    assert_eq!(t.newest("n", "build").await, Some(third.id));
    assert_eq!(t.newest("m", "build").await, None);
}

pub async fn missing_alias_resolves_to_first_created(t: &mut Harness) {
    t.agent("a").await;
    let waiter = t.after(vec![on_alias("build"), on_alias("test")]);
    let waiter = t.create(waiter).await;
    t.reopen().await;
    let mut ids = Vec::new();
    for alias in ["build", "build", "test"] {
        let mut create = t.task();
        create.task.alias = Some(alias.to_owned());
        ids.push(t.create(create).await.id);
    }
    let states: Vec<_> = t.read(waiter.id).await.dependencies.iter().map(|one| one.state).collect();
    assert_eq!(states, [DependencyState::Waiting(ids[0]), DependencyState::Waiting(ids[2])]);
    let worker = t.hello("w").await;
    assert_eq!(work_off(t, &worker).await, 4);
    assert_eq!(t.state(waiter.id).await, State::Succeeded);
}

pub async fn failed_dependency_applies_its_policy(t: &mut Harness) {
    t.agent("a").await;
    let broken = t.plain().await;
    let mut waiters = Vec::new();
    for policy in [OnFailure::Fail, OnFailure::Continue, OnFailure::Cancel] {
        let create = t.after(vec![depend(DependencyKey::Id(broken.id), policy)]);
        waiters.push(t.create(create).await.id);
    }
    let unmade = t.after(vec![depend(DependencyKey::Id(broken.id), OnFailure::Fail)]);
    t.cancel(broken.id).await;
    let mut states = Vec::new();
    for id in waiters {
        states.push(t.state(id).await);
    }
    assert_eq!(states, [State::Failed, State::Queued, State::Cancelled]);
    assert_eq!(t.commits.last().unwrap().tasks.len(), 4, "all in one commit");
    assert_eq!(t.create(unmade).await.state, State::Failed, "it fails immediately");
}

pub async fn failure_propagates_along_a_chain(t: &mut Harness) {
    t.agent("a").await;
    let first = t.plain().await;
    let mut last = first.id;
    for _ in 0..20 {
        let create = t.after(vec![on(last)]);
        last = t.create(create).await.id;
    }
    t.cancel(first.id).await;
    assert_eq!(t.state(last).await, State::Failed);
    assert_eq!(t.commits.last().unwrap().tasks.len(), 21);
}

pub async fn dependency_results_are_dispatched(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let (with, without) = (t.plain().await, t.plain().await);
    let last = t.after(vec![on(with.id), on(without.id)]);
    let last = t.create(last).await;
    let given = t.claim(&worker, 2).await;
    t.finish(&given[0], Completion::Succeeded(Some(Bytes::from_static(b"42")))).await.unwrap();
    t.succeed(&given[1]).await;
    assert_eq!(t.result(with.id).await.unwrap(), &b"42"[..]);
    assert_eq!(t.result(without.id).await, None);
    assert_eq!(t.claim(&worker, 2).await[0].id, last.id);
    let previous = t.last_change(last.id).dispatch.unwrap();
    let previous: Vec<_> = previous.previous.iter().map(|one| (one.task.id, one.result.clone())).collect();
    assert_eq!(previous, [(with.id, Some(Bytes::from_static(b"42"))), (without.id, None)]);
}

/// Later attempts of a task get the results of the children that have ended, of which one is its dependency, too.
pub async fn children_results_are_dispatched(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let first = t.plain().await;
    let mut parent = t.after(vec![on(first.id)]);
    parent.task.retry.max_attempts = 9;
    let parent_id = parent.task.id;
    let child = |create: &mut crate::Create| create.task.parent = Some(parent_id);
    let done = || Completion::Succeeded(Some(Bytes::from_static(b"42")));
    let given = t.claim(&worker, 1).await;
    t.finish(&given[0], done()).await.unwrap();
    t.create(parent).await;
    let attempt = t.claim(&worker, 1).await.remove(0);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut create = t.task();
        child(&mut create);
        ids.push(t.create(create).await.id);
    }
    // In the batch of another one, and of another namespace, which is none.
    let (mut fourth, mut foreign) = (t.task(), t.task());
    child(&mut fourth);
    child(&mut foreign);
    foreign.task.namespace = namespace("m");
    ids.push(fourth.task.id);
    t.batch(vec![make(fourth), make(foreign)]).await;
    t.reopen().await;
    assert_eq!(t.read(parent_id).await.children, ids);
    let given = t.claim(&worker, 3).await;
    t.finish(&given[0], done()).await.unwrap();
    t.finish(&given[1], Completion::Failed(Failure::new(Class::Invalid, "no"))).await.unwrap();
    t.finish(&attempt, Completion::Failed(Failure::new(Class::Agent, "again"))).await.unwrap();
    t.later(Duration::from_secs(600));
    t.tick().await;
    let again = t.claim(&worker, 1).await.remove(0);
    assert_eq!(again.id, parent_id);
    let previous = t.last_change(parent_id).dispatch.unwrap();
    let previous: Vec<_> = previous.previous.iter().map(|one| (one.task.id, one.result.clone())).collect();
    let result = || Some(Bytes::from_static(b"42"));
    assert_eq!(previous, [(first.id, result()), (given[0].id, result()), (given[1].id, None)]);
    // One that ended is a parent as well, for a task that continues it.
    t.finish(&again, done()).await.unwrap();
    let mut late = t.task();
    child(&mut late);
    ids.push(t.create(late).await.id);
    assert_eq!(t.read(parent_id).await.children, ids);
}

pub async fn other_namespaces_are_no_dependencies(t: &mut Harness) {
    t.agent("a").await;
    let mut elsewhere = t.task();
    elsewhere.task.namespace = namespace("m");
    elsewhere.task.alias = Some("x".to_owned());
    let (before, after) = (t.after(vec![on(elsewhere.task.id), on_alias("x")]), elsewhere.task.id);
    let before = t.create(before).await;
    t.create(elsewhere).await;
    let later = t.after(vec![on(after), on_alias("x")]);
    let later = t.create(later).await;
    for id in [before.id, later.id] {
        let states: Vec<_> = t.read(id).await.dependencies.iter().map(|one| one.state).collect();
        assert_eq!(states, [DependencyState::Missing; 2]);
    }
}

pub async fn result_reaches_dependent_of_same_batch(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let done = || Completion::Succeeded(Some(Bytes::from_static(b"42")));
    let (first, second) = (t.plain().await, t.plain().await);
    let dependent = t.after(vec![on(first.id)]);
    let dependent = t.create(dependent).await;
    let given = t.claim(&worker, 2).await;
    let previous = |t: &Harness, id| {
        let previous = t.last_change(id).dispatch.unwrap().previous.clone();
        previous.into_iter().map(|one| (one.task.id, one.result)).collect::<Vec<_>>()
    };
    // Released and claimed in the batch that ends the first.
    let routes = vec![t.route(to_agent("a")).await];
    let claim = Claim {
        namespace: namespace("n"),
        worker: worker.clone(),
        routes,
        shared: Vec::new(),
        slots: 1,
        probes: None,
        not_isolating: Default::default(),
    };
    t.batch(vec![ask(first.id, finish(attempt_of(&given[0]), done())), Command::Claim(claim)]).await;
    assert_eq!(previous(t, dependent.id), [(first.id, Some(Bytes::from_static(b"42")))]);
    // Created and assigned in the batch that ends the second.
    let mut offered = t.after(vec![on(second.id)]);
    offered.offer = Some(worker);
    let id = offered.task.id;
    t.batch(vec![ask(second.id, finish(attempt_of(&given[1]), done())), make(offered)]).await;
    assert_eq!(previous(t, id), [(second.id, Some(Bytes::from_static(b"42")))]);
}

pub async fn results_of_one_commit_are_bounded(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let first = t.plain().await;
    let given = t.claim(&worker, 1).await;
    let large = Bytes::from(vec![b'x'; 200 << 10]);
    t.finish(&given[0], Completion::Succeeded(Some(large))).await.unwrap();
    for _ in 0..30 {
        let create = t.after(vec![on(first.id)]);
        t.create(create).await;
    }
    assert_eq!(t.claim(&worker, 30).await.len(), 30);
    let changes = &t.commits.last().unwrap().tasks;
    let previous = changes.iter().filter_map(|change| change.dispatch.as_ref()).flat_map(|one| &one.previous);
    let carried: Vec<_> = previous.map(|one| one.result.as_ref().map_or(0, Bytes::len)).collect();
    // The workers of the others fetch it.
    assert_eq!(carried.len(), 30);
    assert_eq!(carried.iter().filter(|size| **size > 0).count(), (4 << 20) / (200 << 10));
}

pub async fn results_of_one_assignment_are_bounded(t: &mut Harness) {
    const SIZE: usize = 100 << 10;
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut needed = Vec::new();
    for _ in 0..3 {
        needed.push(on(t.plain().await.id));
    }
    for task in t.claim(&worker, 3).await {
        t.finish(&task, Completion::Succeeded(Some(Bytes::from(vec![b'x'; SIZE])))).await.unwrap();
    }
    let last = t.after(needed);
    let last = t.create(last).await;
    assert_eq!(t.claim(&worker, 1).await[0].id, last.id);
    let previous = t.last_change(last.id).dispatch.unwrap().previous.clone();
    let carried: Vec<_> = previous.iter().map(|one| one.result.as_ref().map(Bytes::len)).collect();
    // Each is within the bound by itself: the worker fetches the one with which they exceed it.
    assert_eq!(carried, [Some(SIZE), Some(SIZE), None]);
}
