//! Attempts on workers: reports count only with the live fence.

use std::time::Duration;

use bytes::Bytes;
use rota_core::failure::{Class, Failure};
use rota_core::task::{AttemptRef, Command, Completion, Desired, EventEffect, Item, Rejected, Reply, State};
use rota_core::{Fence, TaskKey};

use super::harness::{Harness, attempt_of, finish, session, want};
use crate::{Refused, Reseal};

fn output(t: &Harness, text: &'static str) -> Item {
    Item { at: t.now(), payload: Bytes::from_static(text.as_bytes()), effect: EventEffect::None }
}

pub async fn attempt_runs_to_success(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    let attempt = attempt_of(&task);
    assert_eq!(t.ask(task.id, Command::Accept(attempt.clone())).await, Ok(Reply::Done));
    let report = |first, items| Command::Report { attempt: attempt.clone(), first, items };
    let items = vec![output(t, "one"), output(t, "two")];
    assert_eq!(t.ask(task.id, report(1, items)).await, Ok(Reply::Reported(2)));
    let items = vec![output(t, "two"), output(t, "three")];
    assert_eq!(t.ask(task.id, report(2, items)).await, Ok(Reply::Reported(3)));
    let items = vec![output(t, "five")];
    let gap = Refused::Rejected(Rejected::Gap { expected: 4, got: 5 });
    assert_eq!(t.ask(task.id, report(5, items)).await, Err(gap));
    let done = Completion::Succeeded(Some(Bytes::from_static(b"result")));
    assert_eq!(t.finish(&task, done).await, Ok(Reply::Done));
    assert_eq!(t.state(task.id).await, State::Succeeded);
    assert_eq!(t.steps(task.id).await, ["created", "ready", "assigned", "started", "succeeded"]);
    assert_eq!(t.log(task.id).await.len(), 8);
    assert_eq!(t.result(task.id).await.unwrap(), &b"result"[..]);
}

pub async fn stale_and_unknown_fences_change_nothing(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    let ahead = AttemptRef { by: worker.clone(), fence: Fence(2) };
    let unknown = Refused::Rejected(Rejected::UnknownFence(Fence(2)));
    assert_eq!(t.ask(task.id, Command::Accept(ahead)).await, Err(unknown));
    for by in [session("x", 1), session("w", 2)] {
        let wrong = AttemptRef { by, fence: task.fence };
        assert_eq!(t.ask(task.id, Command::Accept(wrong)).await, Ok(Reply::Stale));
    }
    let reject = Command::Reject { attempt: attempt_of(&task), reason: "no room".to_owned() };
    assert_eq!(t.ask(task.id, reject).await, Ok(Reply::Done));
    assert_eq!(t.ask(task.id, Command::Accept(attempt_of(&task))).await, Ok(Reply::Stale));
    let again = t.claim(&worker, 1).await.remove(0);
    assert_eq!(again.fence, Fence(2));
    let before = t.commits.len();
    let items = vec![output(t, "late")];
    let report = Command::Report { attempt: attempt_of(&task), first: 1, items };
    assert_eq!(t.ask(task.id, report).await, Ok(Reply::Stale));
    assert_eq!(t.commits.len(), before, "nothing has changed");
    t.succeed(&again).await;
}

pub async fn late_result_is_noted_once(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let (one, two) = (t.hello("w1").await, t.hello("w2").await);
    let lost = t.claim(&one, 1).await.remove(0);
    t.one(super::harness::end_session(&one)).await.unwrap();
    let live = t.claim(&two, 1).await.remove(0);
    assert_eq!(live.id, lost.id);
    let done = Completion::Succeeded(Some(Bytes::from_static(b"late")));
    for _ in 0..2 {
        assert_eq!(t.ask(lost.id, finish(attempt_of(&lost), done.clone())).await, Ok(Reply::Stale));
    }
    let log = t.log(lost.id).await;
    let notices = log.iter().filter(|event| matches!(event.body, rota_core::task::Body::Notice { .. }));
    assert_eq!(notices.count(), 1);
    assert_eq!(t.result(lost.id).await, None);
    t.succeed(&live).await;
}

pub async fn secrets_are_dispatched_with_each_attempt(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.secrets = Some(Bytes::from_static(b"sealed"));
    let task = t.create(create).await;
    let worker = t.hello("w").await;
    for _ in 0..2 {
        t.reopen().await;
        let given = t.claim(&worker, 1).await.remove(0);
        let dispatch = t.last_change(task.id).dispatch.unwrap();
        assert_eq!(dispatch.secrets.as_deref(), Some(&b"sealed"[..]));
        assert_eq!(dispatch.payload, format!("do {}", task.id).as_bytes());
        let failed = Completion::Failed(Failure::new(Class::Crash, "it fell"));
        t.finish(&given, failed).await.unwrap();
        t.later(Duration::from_secs(600));
        t.tick().await;
    }
}

pub async fn sealed_secrets_are_replaced_until_the_end(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let mut tasks = Vec::new();
    for word in ["one", "two"] {
        let mut create = t.task();
        create.secrets = Some(Bytes::from_static(word.as_bytes()));
        tasks.push(t.create(create).await);
    }
    let first = t.store.secrets(TaskKey(0), 1).await.unwrap();
    let rest = t.store.secrets(first[0].key, 10).await.unwrap();
    let found: Vec<_> = first.iter().chain(&rest).map(|one| (one.key, one.id.1, &one.sealed[..])).collect();
    assert_eq!(found, [(tasks[0].key, tasks[0].id, &b"one"[..]), (tasks[1].key, tasks[1].id, b"two")]);
    let reseal = |key, before: &'static str, after: &'static str| {
        let [before, after] = [before, after].map(|text| Bytes::from_static(text.as_bytes()));
        Reseal { key, before, after }
    };
    let wanted = vec![
        reseal(tasks[0].key, "one", "new"),
        reseal(tasks[1].key, "other", "never"),
        reseal(TaskKey(u64::MAX), "two", "never"),
    ];
    assert!(matches!(t.one(crate::Command::Reseal(wanted)).await, Ok(crate::Reply::Resealed(1))));
    t.reopen().await;
    let worker = t.hello("w").await;
    t.claim(&worker, 3).await;
    let given = |t: &Harness, id| t.last_change(id).dispatch.unwrap().secrets.clone();
    assert_eq!(given(t, tasks[0].id).as_deref(), Some(&b"new"[..]));
    assert_eq!(given(t, tasks[1].id).as_deref(), Some(&b"two"[..]));
    // One that ends in the same batch leaves no secrets behind.
    let live = t.read(tasks[0].id).await;
    let command = finish(attempt_of(&live), Completion::Succeeded(None));
    let end = crate::Command::Task { namespace: live.namespace.clone(), id: live.id, command };
    let batch = vec![crate::Command::Reseal(vec![reseal(live.key, "new", "late")]), end];
    assert!(t.batch(batch).await.iter().all(Result::is_ok));
    let left: Vec<_> =
        t.store.secrets(TaskKey(0), 10).await.unwrap().into_iter().map(|one| one.key).collect();
    assert_eq!(left, [tasks[1].key]);
}

pub async fn failed_attempt_is_retried(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.task.retry.max_attempts = 2;
    let task = t.create(create).await;
    let worker = t.hello("w").await;
    for attempt in 1..=2 {
        let given = t.claim(&worker, 1).await.remove(0);
        assert_eq!(given.assignment.as_ref().unwrap().attempt, attempt);
        let failed = Completion::Failed(Failure::new(Class::Crash, "it fell"));
        t.finish(&given, failed).await.unwrap();
        t.later(Duration::from_secs(600));
        t.tick().await;
    }
    let task = t.read(task.id).await;
    assert_eq!((task.state, task.attempts, task.failures), (State::Failed, 2, 2));
}

pub async fn running_task_is_cancelled(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.ask(task.id, Command::Accept(attempt_of(&task))).await.unwrap();
    t.ask(task.id, want(Desired::Cancelled)).await.unwrap();
    assert_eq!(t.state(task.id).await, State::Running);
    let done = Completion::Succeeded(Some(Bytes::from_static(b"too late")));
    t.finish(&task, done).await.unwrap();
    assert_eq!(t.state(task.id).await, State::Cancelled);
    assert_eq!(t.result(task.id).await, None);
}
