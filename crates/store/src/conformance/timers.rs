//! What time brings.

use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::task::{Command, Ending, State};

use super::trial::{Trial, held};
use crate::{Command as Ask, Reply};

const SECOND: Duration = Duration::from_secs(1);

pub async fn not_before(t: &mut Trial) {
    t.agent("a").await;
    let mut create = t.task();
    create.new.not_before = Some(t.now() + SECOND * 10);
    let task = t.create(create).await;
    assert_eq!(task.state, State::Pending);
    t.later(SECOND * 9);
    assert_eq!(t.tick().await, 0);
    t.later(SECOND);
    assert_eq!(t.tick().await, 1);
    assert_eq!(t.state(task.id).await, State::Queued);
    assert_eq!(t.tick().await, 0, "nothing is due twice");
}

pub async fn queue_timeout(t: &mut Trial) {
    t.agent("a").await;
    let mut create = t.task();
    create.new.limits.queue_timeout = Some(SECOND * 5);
    let task = t.create(create).await;
    t.reopen().await;
    t.later(SECOND * 5);
    assert_eq!(t.tick().await, 1);
    let task = t.read(task.id).await;
    assert_eq!((task.state, task.failure.unwrap().class), (State::Failed, Class::QueueTimeout));
    assert_eq!(t.tick().await, 0);
}

pub async fn a_retry_comes_due(t: &mut Trial) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    let failed = Ending::Failed(Failure::new(Class::Crash, "it fell"));
    t.finish(&task, failed).await.unwrap();
    let waiting = t.read(task.id).await;
    assert_eq!(waiting.state, State::Pending);
    assert_eq!(t.claim(&worker, 1).await.len(), 0);
    let wait = waiting.retry_at.unwrap().since(t.now());
    assert_eq!(t.store.snapshot().await.unwrap().next_due, waiting.retry_at);
    t.later(wait);
    assert_eq!(t.tick().await, 1);
    assert_eq!(t.claim(&worker, 1).await[0].id, task.id);
}

pub async fn not_taken_in_time(t: &mut Trial) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.later(rota_core::task::ACCEPT_TIMEOUT);
    assert_eq!(t.tick().await, 1);
    let back = t.read(task.id).await;
    assert_eq!((back.state, back.attempts, back.assignment), (State::Queued, 0, None));
}

pub async fn total_time(t: &mut Trial) {
    t.agent("a").await;
    let mut create = t.task();
    create.new.limits.timeout = Some(SECOND * 100);
    t.create(create).await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.ask(task.id, Command::Accept(held(&task))).await.unwrap();
    t.later(SECOND * 100);
    assert_eq!(t.tick().await, 0, "its worker ends it first");
    t.later(SECOND * 100);
    assert_eq!(t.tick().await, 1);
    let task = t.read(task.id).await;
    assert_eq!((task.state, task.failure.unwrap().class), (State::Failed, Class::Timeout));
}

pub async fn the_next_time_is_told(t: &mut Trial) {
    t.agent("a").await;
    let mut times = Vec::new();
    for seconds in [30, 10, 20] {
        let mut create = t.task();
        create.new.not_before = Some(t.now() + SECOND * seconds);
        t.create(create).await;
        times.push(t.commits.last().unwrap().next_due.unwrap().since(t.now()));
    }
    assert_eq!(times, [30, 10, 10].map(Duration::from_secs));
    let next = t.store.snapshot().await.unwrap().next_due;
    assert_eq!(next, t.commits.last().unwrap().next_due);
    t.later(SECOND * 10);
    t.tick().await;
    assert_eq!(t.commits.last().unwrap().next_due, Some(t.now() + SECOND * 10));
}

pub async fn no_more_than_asked(t: &mut Trial) {
    t.agent("a").await;
    let mut ids = Vec::new();
    for index in 0..5 {
        let mut create = t.task();
        create.new.not_before = Some(t.now() + SECOND * (5 - index));
        ids.push(t.create(create).await.id);
    }
    t.later(SECOND * 10);
    assert!(matches!(t.one(Ask::Tick { limit: 2 }).await, Ok(Reply::Ticked(2))));
    let mut ready = Vec::new();
    for id in ids {
        ready.push(t.state(id).await == State::Queued);
    }
    assert_eq!(ready, [false, false, false, true, true], "what was due first");
}
