//! Attempts that have released their slot until a person answers.

use std::time::Duration;

use bytes::Bytes;
use rota_core::task::{
    Command, Completion, Desired, EventEffect, Item, Rejected, Reply, State, Task, WorkerRef,
};

use super::harness::{Harness, attempt_of, finish, want};
use crate::Refused;

const HOUR: Duration = Duration::from_secs(3600);

fn answer(request: &str) -> Command {
    Command::GiveInput { request: request.to_owned(), payload: Bytes::from_static(b"yes"), grant: None }
}

/// Claims the first task, whose attempt asks, stores a checkpoint, and releases its slot.
async fn released(t: &mut Harness, worker: &WorkerRef) -> Task {
    let task = t.claim(worker, 1).await.remove(0);
    let attempt = attempt_of(&task);
    let asked =
        EventEffect::InputRequested { request: "q".to_owned(), payload: Bytes::from_static(b"may I?") };
    let items = vec![Item { at: t.now(), payload: Bytes::from_static(b"event"), effect: asked }];
    t.ask(task.id, Command::Report { attempt: attempt.clone(), first: 1, items }).await.unwrap();
    let keep = Command::KeepArtifacts {
        attempt: attempt.clone(),
        list: "list".into(),
        checkpoint: true,
        unusable: false,
    };
    t.ask(task.id, keep).await.unwrap();
    let release = Command::Release { attempt, requests: vec!["q".to_owned()] };
    assert_eq!(t.ask(task.id, release).await, Ok(Reply::Done));
    t.read(task.id).await
}

pub async fn slot_is_free_until_the_answer(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let first = t.plain().await;
    t.later(Duration::from_secs(1));
    let waits = released(t, &worker).await;
    assert_eq!((waits.id, waits.state, waits.assignment.is_none()), (first.id, State::Pending, true));
    // It is not claimed, and no time ends it.
    let second = t.plain().await;
    let claimed: Vec<_> = t.claim(&worker, 9).await.iter().map(|task| task.id).collect();
    assert_eq!(claimed, [second.id]);
    t.later(HOUR * 24 * 30);
    t.tick().await;
    assert_eq!(t.state(first.id).await, State::Pending);
    // The question outlives a restart of the control plane.
    t.reopen().await;
    let kept = t.read(first.id).await;
    assert_eq!(kept.open_questions().map(|(request, _)| request).collect::<Vec<_>>(), ["q"]);
    let third = t.plain().await;
    assert_eq!(t.ask(first.id, answer("q")).await, Ok(Reply::InputSeq(1)));
    let ready = t.read(first.id).await;
    assert_eq!((ready.state, ready.ready_at), (State::Queued, first.ready_at));
    // In its place: before those that came later.
    let worker = t.hello("w").await;
    let claimed: Vec<_> = t.claim(&worker, 9).await.iter().map(|task| task.id).collect();
    let place = |id| claimed.iter().position(|claimed| *claimed == id);
    assert!(place(first.id) < place(third.id) && place(first.id).is_some(), "{claimed:?}");
    let continued = t.read(first.id).await;
    assert_eq!((continued.attempt(), continued.failures, continued.worker_losses), (2, 0, 0));
    assert!(continued.questions[0].answer.is_some(), "the attempt gets it");
    t.succeed(&continued).await;
    assert!(t.read(first.id).await.questions.is_empty());
}

pub async fn released_attempt_counts_no_more(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let task = t.plain().await;
    let late = released(t, &worker).await;
    let attempt = rota_core::task::AttemptRef { by: worker.clone(), fence: late.fence };
    let done = finish(attempt.clone(), Completion::Succeeded(None));
    assert_eq!(t.ask(task.id, done).await, Ok(Reply::Stale));
    let again = Command::Release { attempt, requests: vec!["q".to_owned()] };
    assert_eq!(t.ask(task.id, again).await, Ok(Reply::Stale));
    assert_eq!(t.state(task.id).await, State::Pending);
    // A caller may end it, after which no answer is taken.
    assert_eq!(t.ask(task.id, want(Desired::Cancelled)).await, Ok(Reply::Done));
    let refused = t.ask(task.id, answer("q")).await;
    assert!(matches!(refused, Err(Refused::Rejected(Rejected::Final(_)))), "{refused:?}");
}
