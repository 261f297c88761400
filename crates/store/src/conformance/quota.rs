//! Cool-downs of credentials that tasks bring along, and queue timeouts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::quota::CredentialId;
use rota_core::target::Target;
use rota_core::task::{self, Completion, State, Task, WorkerRef};
use rota_core::{AgentName, TaskId, Timestamp};

use super::harness::{Harness, namespace, to_agent};
use crate::{Command, CoolDownEnd};

pub(super) const ONE: CredentialId = CredentialId([1; 8]);
pub(super) const TWO: CredentialId = CredentialId([2; 8]);
pub(super) const RESET: Duration = Duration::from_mins(40);

pub(super) fn limited(resets: Option<Duration>) -> Completion {
    let failure = Failure {
        retry_after: resets,
        limit_resets: resets.is_some(),
        limit: "five_hour".to_owned(),
        ..Failure::new(Class::RateLimit, "429")
    };
    Completion::Failed(failure)
}

pub(super) async fn add(t: &mut Harness, credential: CredentialId) -> TaskId {
    t.later(Duration::from_millis(1));
    let mut create = t.task();
    create.task.credential = Some(credential);
    t.create(create).await.id
}

/// Creates tasks of one credential, oldest first.
async fn several(t: &mut Harness, count: usize, credential: CredentialId) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(add(t, credential).await);
    }
    ids
}

pub(super) async fn start(t: &mut Harness) -> WorkerRef {
    t.agent("a").await;
    t.hello("w").await
}

/// Claims a task, which fails.
pub(super) async fn fail_next(t: &mut Harness, worker: &WorkerRef, completion: Completion) -> Arc<Task> {
    let task = t.claim(worker, 1).await.remove(0);
    t.finish(&task, completion).await.unwrap();
    task
}

async fn until(t: &Harness, id: TaskId) -> Timestamp {
    t.read(id).await.retry_at.expect("it does not wait")
}

/// Ends every follow-up that is left.
pub(super) async fn settle(t: &mut Harness) {
    for _ in 0..20 {
        t.batch(Vec::new()).await;
    }
}

pub(super) async fn cool_downs(t: &Harness) -> usize {
    t.store.snapshot().await.unwrap().cool_downs.len()
}

pub async fn tasks_wait_until_the_named_reset(t: &mut Harness) {
    let worker = start(t).await;
    let ids = several(t, 50, ONE).await;
    let ready: Vec<_> = t.read(ids[7]).await.ready_at.into_iter().collect();
    fail_next(t, &worker, limited(Some(RESET))).await;
    let reset = t.now() + RESET;
    // One commit looks at all of them, and a later one at none.
    assert_eq!(t.claim(&worker, 8).await.len(), 0);
    assert_eq!(t.commits.last().unwrap().tasks.len(), 49);
    t.commits.clear();
    assert_eq!(t.claim(&worker, 8).await.len(), 0);
    assert!(t.commits.iter().all(|commit| commit.tasks.is_empty()));
    for id in &ids {
        let task = t.read(*id).await;
        assert_eq!((task.state, task.retry_at, task.failures), (State::Pending, Some(reset), 0));
        assert!(task.attempts <= 1 && task.quota.as_ref().unwrap().limit == "five_hour");
    }
    // A new one waits too, although a slot is free.
    let mut create = t.task();
    (create.task.credential, create.offer) = (Some(ONE), Some(worker.clone()));
    let new = t.create(create).await;
    assert_eq!((new.state, new.retry_at), (State::Pending, Some(reset)));
    t.reopen().await;
    let (worker, _) = t.hello_again("w", "process 1", Vec::new()).await;
    t.later(RESET - Duration::from_secs(1));
    assert_eq!((t.tick().await, t.claim(&worker, 60).await.len(), cool_downs(t).await), (0, 0, 1));
    t.later(Duration::from_secs(1));
    let end = Command::EndCoolDown { namespace: namespace("n"), credential: ONE, how: CoolDownEnd::Passed };
    t.one(end).await.unwrap();
    assert_eq!(cool_downs(t).await, 0);
    let given = t.claim(&worker, 60).await;
    assert_eq!(given.iter().map(|task| task.id).collect::<Vec<_>>(), [ids.clone(), vec![new.id]].concat());
    assert_eq!(t.read(ids[7]).await.ready_at.into_iter().collect::<Vec<_>>(), ready, "the rank is kept");
    for task in &given {
        t.succeed(task).await;
    }
    assert_eq!(
        t.steps(ids[7]).await,
        ["created", "ready", "cooling_down", "ready", "assigned", "started", "succeeded"]
    );
}

pub async fn credentials_do_not_block_one_another(t: &mut Harness) {
    let worker = start(t).await;
    let ones = several(t, 30, ONE).await;
    let twos = several(t, 3, TWO).await;
    fail_next(t, &worker, limited(Some(RESET))).await;
    let given = t.claim(&worker, 2).await;
    assert_eq!(given.iter().map(|task| task.id).collect::<Vec<_>>(), twos[..2]);
    t.finish(&given[0], limited(Some(RESET * 2))).await.unwrap();
    assert_eq!(until(t, ones[0]).await, t.now() + RESET);
    // An end that far ahead is tried out each hour.
    assert_eq!(until(t, twos[0]).await, t.now() + Duration::from_secs(3600));
    assert_eq!(cool_downs(t).await, 2);
    // One that succeeds was running before, and shows nothing.
    t.succeed(&given[1]).await;
    assert_eq!(cool_downs(t).await, 2);
}

pub async fn one_task_probes_a_limit_without_an_end(t: &mut Harness) {
    let worker = start(t).await;
    let ids = several(t, 9, ONE).await;
    fail_next(t, &worker, limited(None)).await;
    assert_eq!(t.claim(&worker, 9).await.len(), 0);
    let end = until(t, ids[1]).await;
    assert!(end >= t.now() + Duration::from_mins(1) && end <= t.now() + Duration::from_mins(2));
    t.later(end.since(t.now()));
    assert_eq!(t.tick().await, 9);
    let probe = t.claim(&worker, 9).await;
    assert_eq!(probe.iter().map(|task| task.id).collect::<Vec<_>>(), ids[..1], "one call, of the first task");
    assert_eq!(t.claim(&worker, 9).await.len(), 0);
    // Its first message shows that the limit is over, hours before its end.
    let worked = task::Item { at: t.now(), payload: "hi".into(), effect: task::EventEffect::ModelWorked };
    let attempt = super::harness::attempt_of(&probe[0]);
    let report = task::Command::Report { attempt, first: 1, items: vec![worked] };
    t.ask(probe[0].id, report).await.unwrap();
    assert_eq!(cool_downs(t).await, 0);
    assert_eq!(t.claim(&worker, 9).await.len(), 8);
}

pub async fn failed_probes_wait_longer(t: &mut Harness) {
    let worker = start(t).await;
    let ids = several(t, 3, ONE).await;
    let mut last = Duration::ZERO;
    let mut calls = 0;
    fail_next(t, &worker, limited(None)).await;
    for _ in 0..8 {
        assert_eq!(t.claim(&worker, 3).await.len(), 0);
        let wait = until(t, ids[2]).await.since(t.now());
        assert!(wait * 2 >= last && wait <= Duration::from_mins(30), "{last:?}, then {wait:?}");
        last = wait;
        t.later(wait);
        t.tick().await;
        fail_next(t, &worker, limited(None)).await;
        calls += 1;
    }
    assert!(last >= Duration::from_mins(15));
    assert_eq!(calls, 8);
    // A probe whose worker rejects it has shown nothing: another one may.
    t.claim(&worker, 3).await;
    let wait = until(t, ids[2]).await.since(t.now());
    t.later(wait);
    t.tick().await;
    let probe = t.claim(&worker, 3).await.remove(0);
    let reject =
        task::Command::Reject { attempt: super::harness::attempt_of(&probe), reason: "no".to_owned() };
    t.ask(probe.id, reject).await.unwrap();
    assert_eq!(t.claim(&worker, 3).await.len(), 1);
}

pub async fn queue_timeout_counts_no_cool_down(t: &mut Harness) {
    let worker = start(t).await;
    add(t, ONE).await;
    fail_next(t, &worker, limited(Some(RESET))).await;
    let mut create = t.task();
    create.task.credential = Some(ONE);
    create.task.limits.queue_timeout = Some(Duration::from_mins(10));
    let id = t.create(create).await.id;
    t.later(Duration::from_mins(9));
    assert_eq!(t.claim(&worker, 1).await.len(), 0);
    t.later(RESET - Duration::from_mins(9));
    t.tick().await;
    assert_eq!(t.state(id).await, State::Queued);
    t.later(Duration::from_mins(9));
    t.tick().await;
    assert_eq!(t.state(id).await, State::Queued);
    t.later(Duration::from_mins(2));
    t.tick().await;
    assert_eq!(t.state(id).await, State::Failed);
}

pub async fn lifted_limit_releases_a_long_queue(t: &mut Harness) {
    let worker = start(t).await;
    several(t, 601, ONE).await;
    fail_next(t, &worker, limited(Some(RESET))).await;
    for _ in 0..5 {
        assert_eq!(t.claim(&worker, 1).await.len(), 0);
    }
    let route = t.route(to_agent("a")).await;
    let queued = async |t: &Harness| {
        let queued = t.store.snapshot().await.unwrap().queued;
        queued.into_iter().find(|(id, _)| *id == route).map_or(0, |(_, count)| count)
    };
    assert_eq!(queued(t).await, 0);
    let end = Command::EndCoolDown { namespace: namespace("n"), credential: ONE, how: CoolDownEnd::Forced };
    t.one(end).await.unwrap();
    settle(t).await;
    assert_eq!(queued(t).await, 601);
    assert!(t.commits.iter().all(|commit| commit.tasks.len() <= 256));
    assert_eq!(t.claim(&worker, 601).await.len(), 601);
}

pub async fn queue_timeout_counts_no_wait_of_an_agent(t: &mut Harness) {
    let worker = start(t).await;
    let mut create = t.task();
    create.task.limits.queue_timeout = Some(Duration::from_mins(10));
    let mut of_several = t.task();
    of_several.task.limits.queue_timeout = create.task.limits.queue_timeout;
    of_several.task.target =
        Target::Agents(["a", "unknown"].map(|name| AgentName::new(name).unwrap()).into());
    let id = t.create(create).await.id;
    let several = t.create(of_several).await.id;
    let agent = (namespace("n"), AgentName::new("a").unwrap());
    let held = Command::HoldAgents(BTreeMap::from([(agent, t.now())]));
    t.one(held).await.unwrap();
    t.later(Duration::from_hours(5));
    t.tick().await;
    // It waits in the queue, where another worker of its agent may take it.
    assert_eq!((t.state(id).await, t.state(several).await), (State::Queued, State::Queued));
    t.one(Command::HoldAgents(BTreeMap::new())).await.unwrap();
    t.later(Duration::from_mins(9));
    t.tick().await;
    assert_eq!(t.state(id).await, State::Queued);
    // A long wait was counted a quarter of an hour ahead.
    t.later(Duration::from_mins(17));
    t.tick().await;
    assert_eq!((t.state(id).await, t.claim(&worker, 1).await.len()), (State::Failed, 0));
}

pub async fn queue_timeout_counts_no_wait_that_is_over(t: &mut Harness) {
    start(t).await;
    let mut create = t.task();
    create.task.limits.queue_timeout = Some(Duration::from_mins(10));
    let id = t.create(create).await.id;
    let agent = (namespace("n"), AgentName::new("a").unwrap());
    t.one(Command::HoldAgents(BTreeMap::from([(agent, t.now())]))).await.unwrap();
    t.later(Duration::from_mins(9));
    t.one(Command::HoldAgents(BTreeMap::new())).await.unwrap();
    t.later(Duration::from_mins(2));
    t.tick().await;
    assert_eq!(t.state(id).await, State::Queued);
    t.later(Duration::from_mins(9));
    t.tick().await;
    assert_eq!(t.state(id).await, State::Failed);
}
