//! Deadlines.

use std::sync::Arc;
use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::task::{CONFIRM_SLACK, Command, Completion, Desired, State};

use super::follow_ups::settle;
use super::harness::{Harness, attempt_of, end_session, make, want};
use crate::{Command as Ask, Reply, Tick};

const SECOND: Duration = Duration::from_secs(1);
/// More than two commits take up.
const MANY: usize = 600;

pub async fn start_time_delays_a_task(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.task.not_before = Some(t.now() + SECOND * 10);
    let task = t.create(create).await;
    assert_eq!(task.state, State::Pending);
    t.later(SECOND * 9);
    assert_eq!(t.tick().await, 0);
    t.later(SECOND);
    assert_eq!(t.tick().await, 1);
    assert_eq!(t.state(task.id).await, State::Queued);
    assert_eq!(t.tick().await, 0, "nothing is due twice");
}

pub async fn queue_timeout_fails_a_task(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.task.limits.queue_timeout = Some(SECOND * 5);
    let task = t.create(create).await;
    t.reopen().await;
    t.later(SECOND * 5);
    assert_eq!(t.tick().await, 1);
    let task = t.read(task.id).await;
    assert_eq!((task.state, task.failure.unwrap().class), (State::Failed, Class::QueueTimeout));
    assert_eq!(t.tick().await, 0);
}

pub async fn queue_timeout_counts_no_outage(t: &mut Harness) {
    t.agent("a").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut create = t.task();
        create.task.limits.queue_timeout = Some(SECOND * 100);
        ids.push(t.create(create).await.id);
    }
    let states = async |t: &Harness, expected| {
        for id in &ids {
            assert_eq!(t.state(*id).await, expected);
        }
    };
    t.later(SECOND * 60);
    let last_write = t.plain().await;
    // Stopped for an hour. Then workers have 30 s to come back, and 40 s are left.
    t.stopped(SECOND * 3600).await;
    assert_eq!(t.tick().await, 3);
    states(t, State::Queued).await;
    assert_eq!(t.tick().await, 0, "their deadlines have moved");
    t.later(SECOND * 60);
    assert_eq!(t.tick().await, 0);
    // Asleep for an hour, and stopped again for a moment: what does not count is kept.
    t.later(SECOND * 3600);
    t.one(Ask::ClockJumped { by: SECOND * 3600 }).await.unwrap();
    assert_eq!(t.tick().await, 3);
    t.reopen().await;
    states(t, State::Queued).await;
    assert_eq!(t.tick().await, 0);
    // 10 s were left, and 30 s to come back.
    t.later(SECOND * 39);
    assert_eq!(t.tick().await, 0);
    t.later(SECOND);
    assert_eq!(t.tick().await, 3);
    states(t, State::Failed).await;
    assert_eq!(t.state(last_write.id).await, State::Queued);
}

pub async fn retry_becomes_due(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    let failed = Completion::Failed(Failure::new(Class::Crash, "it fell"));
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

pub async fn unaccepted_assignment_is_requeued(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.later(rota_core::task::ACCEPT_TIMEOUT);
    assert_eq!(t.tick().await, 1);
    let back = t.read(task.id).await;
    assert_eq!((back.state, back.attempts, back.assignment), (State::Queued, 0, None));
}

pub async fn assignment_waits_for_the_lease_of_its_worker(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    t.plain().await;
    let worker = t.hello("w").await;
    let tasks = t.claim(&worker, 2).await;
    t.ask(tasks[1].id, want(Desired::Cancelled)).await.unwrap();
    t.later(rota_core::task::ACCEPT_TIMEOUT);
    let disconnected = Arc::new([(tasks[0].namespace.clone(), worker.worker.clone())].into());
    let tick = Tick { limit: 9, at: None, disconnected };
    assert!(matches!(t.one(Ask::Tick(tick)).await, Ok(Reply::Ticked(1))));
    let states = [t.state(tasks[0].id).await, t.state(tasks[1].id).await];
    assert_eq!(states, [State::Assigned, State::Cancelled]);
    // It has the assignment, and only its answer was lost.
    t.hello_again("w", "process 1", vec![(tasks[0].id, tasks[0].fence)]).await;
    assert_eq!((t.tick().await, t.state(tasks[0].id).await), (0, State::Running));
}

pub async fn total_timeout_fails_a_task(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.task.limits.timeout = Some(SECOND * 100);
    t.create(create).await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.ask(task.id, Command::Accept(attempt_of(&task))).await.unwrap();
    t.later(SECOND * 100);
    assert_eq!(t.tick().await, 0, "its worker ends it first");
    t.reopen().await;
    let next = t.store.snapshot().await.unwrap().earliest_due();
    assert_eq!(next, t.read(task.id).await.due(), "a start waits for deadlines on workers too");
    t.later(SECOND * 100);
    assert_eq!(t.tick().await, 0, "its worker has not reported what happened meanwhile");
    let (_, resumed) = t.hello_again("w", "process 1", vec![(task.id, task.fence)]).await;
    assert!(resumed[0].live.is_some());
    assert_eq!(t.tick().await, 0, "its worker has a moment to report");
    t.later(CONFIRM_SLACK);
    assert_eq!(t.tick().await, 1);
    let task = t.read(task.id).await;
    assert_eq!((task.state, task.failure.unwrap().class), (State::Failed, Class::Timeout));
}

pub async fn start_judges_no_absent_worker(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    t.plain().await;
    let worker = t.hello("w").await;
    let tasks = t.claim(&worker, 2).await;
    t.ask(tasks[0].id, Command::Accept(attempt_of(&tasks[0]))).await.unwrap();
    let reason = "the test wants it".to_owned();
    let cancel = Command::Update { priority: None, labels: None, desired: Some(Desired::Cancelled), reason };
    t.ask(tasks[0].id, cancel).await.unwrap();
    t.reopen().await;
    t.later(SECOND * 3600);
    assert_eq!(t.tick().await, 0);
    let running = tasks.iter().map(|task| (task.id, task.fence)).collect();
    let (worker, _) = t.hello_again("w", "process 1", running).await;
    assert_eq!(t.tick().await, 0);
    // The second one runs too, although its acceptance was not durable.
    assert_eq!([t.state(tasks[0].id).await, t.state(tasks[1].id).await], [State::Running; 2]);
    // A worker that does not come back is given up.
    t.reopen().await;
    t.one(end_session(&worker)).await.unwrap();
    assert_eq!([t.state(tasks[0].id).await, t.state(tasks[1].id).await], [State::Cancelled, State::Queued]);
}

pub async fn clock_jump_moves_deadlines_on_workers(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    let due = t.read(task.id).await.due().unwrap();
    t.later(SECOND * 3600);
    // The clock may jump while a tick is on its way.
    let before = t.now() - SECOND * 3600;
    let tick = Tick { limit: 9, at: Some(before), ..Tick::default() };
    assert!(matches!(t.one(Ask::Tick(tick)).await, Ok(Reply::Ticked(0))));
    t.one(Ask::ClockJumped { by: SECOND * 3600 }).await.unwrap();
    assert_eq!(t.tick().await, 0);
    assert_eq!(t.read(task.id).await.due(), Some(due + SECOND * 3600));
}

pub async fn clock_jump_takes_several_commits(t: &mut Harness) {
    t.agent("a").await;
    let batch = (0..MANY).map(|_| make(t.task())).collect();
    t.batch(batch).await.into_iter().for_each(|reply| drop(reply.unwrap()));
    let worker = t.hello("w").await;
    let tasks = t.claim(&worker, MANY).await;
    assert_eq!(tasks.len(), MANY);
    t.commits.clear();
    t.later(SECOND * 3600);
    t.one(Ask::ClockJumped { by: SECOND * 3600 }).await.unwrap();
    assert!(settle(t).await > 2);
    for task in tasks {
        assert_eq!(t.read(task.id).await.due(), task.due().map(|due| due + SECOND * 3600));
    }
}

pub async fn next_deadline_is_published(t: &mut Harness) {
    t.agent("a").await;
    let mut times = Vec::new();
    for seconds in [30, 10, 20] {
        let mut create = t.task();
        create.task.not_before = Some(t.now() + SECOND * seconds);
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

pub async fn tick_respects_its_limit(t: &mut Harness) {
    t.agent("a").await;
    let mut ids = Vec::new();
    for index in 0..5 {
        let mut create = t.task();
        create.task.not_before = Some(t.now() + SECOND * (5 - index));
        ids.push(t.create(create).await.id);
    }
    t.later(SECOND * 10);
    assert!(matches!(t.one(Ask::tick(2)).await, Ok(Reply::Ticked(2))));
    let mut ready = Vec::new();
    for id in ids {
        ready.push(t.state(id).await == State::Queued);
    }
    assert_eq!(ready, [false, false, false, true, true], "what was due first");
}
