//! Ends of attempts, waits in the queue and usage, as commits report them.

use std::time::Duration;

use bytes::Bytes;
use rota_core::failure::{Class, Failure};
use rota_core::task::{self, AttemptOutcome, Command, Completion, Desired, Own, State};
use rota_core::usage::Usage;
use rota_core::{TaskId, TaskKey, Timestamp};

use super::harness::{Harness, ask, attempt_of, end_session, finish, namespace, to_agent, want};
use crate::{ArtifactsKey, AttemptEnded, Claim, Given, Reply, Work};

const STEP: Duration = Duration::from_secs(1);

/// Every end that the commits so far report for a task.
fn ends(t: &Harness, id: TaskId) -> Vec<AttemptEnded> {
    let all = t.commits.iter().flat_map(|commit| &commit.attempts_ended);
    all.filter(|ended| ended.task.id == id).cloned().collect()
}

/// The one end that the last commit reports.
fn last(t: &Harness) -> AttemptEnded {
    let [ended] = &t.commits.last().unwrap().attempts_ended[..] else { panic!("{:?}", t.commits.last()) };
    ended.clone()
}

async fn started(t: &mut Harness, worker: &task::WorkerRef) -> std::sync::Arc<task::Task> {
    let task = t.claim(worker, 1).await.remove(0);
    t.later(STEP);
    t.ask(task.id, Command::Accept(attempt_of(&task))).await.unwrap();
    t.later(STEP);
    task
}

pub async fn success_is_reported_once(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.task.own = Own { program: true, ..Own::default() };
    let joined = t.now();
    let id = t.create(create).await.id;
    let worker = t.hello("w").await;
    t.later(STEP);
    let assigned = t.now();
    let task = started(t, &worker).await;
    let usage = Usage { output_tokens: 7, model: "m".to_owned(), ..Usage::default() };
    let done = Command::Finish {
        attempt: attempt_of(&task),
        last: 0,
        completion: Completion::Succeeded(None),
        usage: Some(usage.clone()),
        session: String::new(),
        jitter: 0.5,
    };
    assert_eq!(t.ask(id, done.clone()).await, Ok(task::Reply::Done));
    // The answer was lost, and the worker repeats itself.
    assert_eq!(t.ask(id, done).await, Ok(task::Reply::Done));
    let [ended] = &ends(t, id)[..] else { panic!("{:?}", t.commits) };
    assert_eq!((ended.namespace(), ended.agent().unwrap().as_str()), (&namespace("n"), "a"));
    assert_eq!(ended.task.state, State::Succeeded);
    let attempt = &ended.attempt;
    assert_eq!((attempt.outcome, &attempt.failure), (AttemptOutcome::Succeeded, &None));
    assert_eq!((attempt.fence, attempt.assignment.attempt), (task.fence, 1));
    assert_eq!((attempt.assignment.worker.as_str(), attempt.assignment.at), ("w", assigned));
    assert_eq!((attempt.started_at, attempt.at), (Some(assigned + STEP), t.now()));
    assert_eq!(attempt.assignment.own, Own { program: true, ..Own::default() });
    assert_eq!(attempt.assignment.usage, usage);

    let waits: Vec<_> = t.commits.iter().flat_map(|commit| &commit.queue_left).collect();
    let [left] = waits[..] else { panic!("{waits:?}") };
    assert_eq!((left.wait.since, left.wait.until), (joined, assigned));
    assert_eq!(left.agent.as_ref().unwrap().as_str(), "a");
    let used: Vec<_> = t.commits.iter().flat_map(|commit| &commit.usage).collect();
    let [added] = used[..] else { panic!("{used:?}") };
    assert_eq!((&added.usage, added.agent.as_ref().unwrap().as_str()), (&usage, "a"));
}

pub async fn usage_is_reported_as_difference(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = started(t, &worker).await;
    let total = |input_tokens| Usage { input_tokens, ..Usage::default() };
    for (number, tokens) in [(1, 10), (2, 25)] {
        let effect = task::EventEffect::Usage(total(tokens));
        let items = vec![task::Item { at: t.now(), payload: bytes::Bytes::new(), effect }];
        t.ask(task.id, Command::Report { attempt: attempt_of(&task), first: number, items }).await.unwrap();
        t.reopen().await;
    }
    t.finish(&task, Completion::Failed(Failure::new(Class::Crash, "it fell"))).await.unwrap();
    assert_eq!(last(t).attempt.assignment.usage, total(25));
    assert_eq!(t.commits.last().unwrap().usage.len(), 0);
    t.later(Duration::from_secs(600));
    t.tick().await;
    let again = started(t, &worker).await;
    let done = Command::Finish {
        attempt: attempt_of(&again),
        last: 0,
        completion: Completion::Succeeded(None),
        usage: Some(total(4)),
        session: String::new(),
        jitter: 0.5,
    };
    t.ask(task.id, done).await.unwrap();
    assert_eq!(last(t).attempt.assignment.usage, total(4));
    assert_eq!(t.commits.last().unwrap().usage[0].usage, total(4));
    assert_eq!(t.read(task.id).await.usage, total(29));
}

pub async fn rejected_attempt_never_started(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    let reject = Command::Reject { attempt: attempt_of(&task), reason: "no room".to_owned() };
    t.ask(task.id, reject).await.unwrap();
    let ended = last(t);
    assert_eq!(ended.attempt.started_at, None);
    assert_eq!((ended.attempt.outcome, ended.attempt.failure), (AttemptOutcome::Failed, None));
    assert_eq!(ended.task.state, State::Queued);
}

pub async fn untaken_attempt_never_started(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.later(task::ACCEPT_TIMEOUT);
    t.tick().await;
    assert_eq!((last(t).attempt.started_at, last(t).task.id), (None, task.id));
}

pub async fn lost_worker_ends_its_attempts(t: &mut Harness) {
    t.agent("a").await;
    for _ in 0..2 {
        t.plain().await;
    }
    let worker = t.hello("w").await;
    let running = started(t, &worker).await;
    let waiting = t.claim(&worker, 1).await.remove(0);
    t.one(end_session(&worker)).await.unwrap();
    let commit = t.commits.last().unwrap();
    let mut seen: Vec<_> = commit.attempts_ended.iter().collect();
    seen.sort_by_key(|ended| ended.task.id);
    let [first, second] = seen[..] else { panic!("{commit:?}") };
    assert_eq!((first.task.id, second.task.id), (running.id, waiting.id));
    assert_eq!(first.attempt.outcome, AttemptOutcome::Lost);
    assert_eq!(first.attempt.failure.as_ref().unwrap().class, Class::WorkerLost);
    assert!(first.attempt.started_at.is_some());
    assert_eq!((second.attempt.started_at, second.attempt.failure.as_ref()), (None, None));
}

pub async fn cancelled_attempt_is_reported(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = started(t, &worker).await;
    t.cancel(task.id).await;
    assert_eq!(ends(t, task.id).len(), 0);
    t.finish(&task, Completion::Stopped { by: "SIGTERM".to_owned() }).await.unwrap();
    assert_eq!((last(t).attempt.outcome, last(t).attempt.failure), (AttemptOutcome::Cancelled, None));
    // One that is cancelled in the queue had no attempt, but its wait has ended.
    let id = t.plain().await.id;
    t.cancel(id).await;
    let commit = t.commits.last().unwrap();
    assert_eq!((commit.attempts_ended.len(), commit.queue_left.len()), (0, 1));
    assert_eq!(commit.queue_left[0].agent, None);
    assert_eq!(t.ask(id, want(Desired::Cancelled)).await, Ok(task::Reply::Done));
    assert_eq!(ends(t, id).len(), 0);
}

pub async fn retries_are_reported_each(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.task.retry.max_attempts = 2;
    let id = t.create(create).await.id;
    let worker = t.hello("w").await;
    for state in [State::Pending, State::Failed] {
        let task = started(t, &worker).await;
        t.finish(&task, Completion::Failed(Failure::new(Class::Crash, "it fell"))).await.unwrap();
        assert_eq!(last(t).task.state, state);
        t.later(Duration::from_secs(600));
        t.tick().await;
    }
    let seen = ends(t, id);
    let numbers: Vec<_> = seen.iter().map(|ended| ended.attempt.assignment.attempt).collect();
    assert_eq!(numbers, [1, 2]);
    for ended in seen {
        assert_eq!(ended.attempt.outcome, AttemptOutcome::Failed);
        assert_eq!(ended.attempt.failure.unwrap().class, Class::Crash);
    }
}

pub async fn attempts_survive_a_reopen(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.task.own = Own { credentials: true, ..Own::default() };
    t.create(create).await;
    let worker = t.hello("w").await;
    let task = started(t, &worker).await;
    let began: Timestamp = t.read(task.id).await.assignment.unwrap().started_at.unwrap();
    t.reopen().await;
    t.later(STEP);
    t.finish(&task, Completion::Failed(Failure::new(Class::Auth, "401"))).await.unwrap();
    let ended = last(t);
    assert_eq!((ended.attempt.started_at, ended.agent().unwrap().as_str()), (Some(began), "a"));
    assert!(ended.attempt.assignment.own.credentials);
}

/// The record of the commit is the batch's last; the attempt is the one that ended in between.
pub async fn reassigned_in_one_batch(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let (one, two) = (t.hello("w1").await, t.hello("w2").await);
    let task = t.claim(&one, 1).await.remove(0);
    let routes = vec![t.route(to_agent("a")).await];
    let reject = Command::Reject { attempt: attempt_of(&task), reason: "no room".to_owned() };
    let claim = Claim {
        namespace: namespace("n"),
        worker: two.clone(),
        routes,
        shared: Vec::new(),
        slots: 1,
        probes: None,
        not_isolating: Default::default(),
    };
    let replies = t.batch(vec![ask(task.id, reject), crate::Command::Claim(claim)]).await;
    assert!(matches!(replies[1], Ok(Reply::Claimed(1))), "{replies:?}");
    let ended = last(t);
    assert_eq!((ended.attempt.assignment.worker, ended.attempt.fence), (one.worker, task.fence));
    let live = ended.task.assignment.as_ref().unwrap();
    assert_eq!((&live.worker, ended.task.state), (&two.worker, State::Assigned));
    assert_eq!(t.commits.last().unwrap().queue_left.len(), 1);
    // A late result of the first one ends nothing.
    let late = finish(attempt_of(&task), Completion::Succeeded(None));
    assert_eq!(t.ask(task.id, late).await, Ok(task::Reply::Stale));
    assert_eq!(ends(t, task.id).len(), 1);
}

pub async fn artifacts_are_listed_by_attempt_until_the_prune(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.given.input = Some("input".into());
    assert!(t.create(create).await.has_artifacts);
    let worker = t.hello("w").await;
    let task = started(t, &worker).await;
    let keep = |attempt, list: &'static str| Command::KeepArtifacts {
        attempt,
        list: list.into(),
        checkpoint: false,
        unusable: false,
    };
    t.ask(task.id, keep(attempt_of(&task), "early")).await.unwrap();
    t.ask(task.id, keep(attempt_of(&task), "late")).await.unwrap();
    t.finish(&task, Completion::Failed(Failure::new(Class::Crash, "it fell"))).await.unwrap();
    assert_eq!(t.ask(task.id, keep(attempt_of(&task), "stale")).await, Ok(task::Reply::Stale));
    t.later(Duration::from_secs(600));
    t.tick().await;
    let again = started(t, &worker).await;
    // Of a worker that sends both without waiting.
    let done = finish(attempt_of(&again), Completion::Succeeded(None));
    let both = [keep(attempt_of(&again), "second"), done].map(|command| ask(task.id, command));
    assert!(t.batch(both.into()).await.iter().all(Result::is_ok));
    t.reopen().await;
    let lists = [(0, "input".into()), (1, "late".into()), (2, "second".into())];
    assert_eq!(all_artifacts(t).await, lists);
    let of = |attempt| ArtifactsKey { task: task.key, attempt };
    assert_eq!(t.store.artifacts(of(1)..=of(u32::MAX), 1).await.unwrap(), [(of(1), "late".into())]);
    t.later(STEP);
    assert_eq!(t.prune(t.now(), 10).await, 1);
    assert_eq!(all_artifacts(t).await, []);
}

/// Returns the lists of artifacts of all tasks, with the number of the attempt.
async fn all_artifacts(t: &Harness) -> Vec<(u32, bytes::Bytes)> {
    let from = ArtifactsKey { task: TaskKey(0), attempt: 0 };
    let to = ArtifactsKey { task: TaskKey(u64::MAX), attempt: u32::MAX };
    let rows = t.store.artifacts(from..=to, 9).await.unwrap();
    rows.into_iter().map(|(key, list)| (key.attempt, list)).collect()
}

/// The result of work that is not delivered survives a restart, and is no result of the task.
pub async fn undelivered_result_is_stored_and_replaced(t: &mut Harness) {
    t.agent("a").await;
    let id = t.plain().await.id;
    let worker = t.hello("w").await;
    let task = started(t, &worker).await;
    let undelivered = |result| Completion::Undelivered {
        failure: Failure::new(Class::Delivery, "the forge is away"),
        result: Bytes::from_static(result),
    };
    t.finish(&task, undelivered(b"first")).await.unwrap();
    assert_eq!(last(t).attempt.outcome, AttemptOutcome::Failed);
    t.reopen().await;
    let task = t.read(id).await;
    assert!(task.state == State::Pending && task.delivers() && !task.has_result);
    assert_eq!(t.result(id).await.unwrap(), &b"first"[..]);
    t.later(Duration::from_secs(60));
    t.tick().await;
    let worker = t.hello("x").await;
    let task = started(t, &worker).await;
    t.finish(&task, Completion::Succeeded(Some(Bytes::from_static(b"second")))).await.unwrap();
    assert_eq!(
        (t.state(id).await, t.result(id).await.unwrap()),
        (State::Succeeded, Bytes::from_static(b"second"))
    );
}

/// A task that delivers the work of another has it, whatever becomes of that one.
pub async fn work_of_another_task_is_stored(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    let work = Work { list: "work".into(), result: Some("done".into()) };
    create.given = Given { input: Some("input".into()), work: Some(work) };
    let id = t.create(create).await.id;
    t.reopen().await;
    let task = t.read(id).await;
    assert!(task.has_artifacts && task.delivers() && !task.has_result && task.attempt() == 1);
    assert_eq!(t.result(id).await.unwrap(), &b"done"[..]);
    assert_eq!(all_artifacts(t).await, [(0, "input".into()), (1, "work".into())]);
    let worker = t.hello("w").await;
    let task = started(t, &worker).await;
    assert_eq!(task.attempt(), 2);
    t.finish(&task, Completion::Succeeded(Some("delivered".into()))).await.unwrap();
    assert_eq!((t.state(id).await, t.result(id).await.unwrap()), (State::Succeeded, "delivered".into()));
}
