//! Failed attempts: which are tried again, when, and how often.

use rota_core::failure::{Class, Failure, Recovery};
use rota_core::retry::MAX_WAITS;
use rota_core::task::{CONFIRM_SLACK, Ending, Limits, New, State};

use crate::life::*;

#[test]
fn each_class_goes_its_way() {
    // A worker that ended in order says so; it counts like one that vanished.
    for class in Class::ALL.into_iter().filter(|class| *class != Class::WorkerLost) {
        let mut life = Life::new(plain());
        life.start().finish(failed(class));
        let counts = (life.state(), life.task.failures, life.task.waits);
        match class.recovery() {
            Recovery::Retry => assert_eq!(counts, (State::Pending, 1, 0), "{class:?}"),
            Recovery::Wait => assert_eq!(counts, (State::Pending, 0, 1), "{class:?}"),
            Recovery::Stop => assert_eq!(counts, (State::Failed, 1, 0), "{class:?}"),
        }
        let reason = life.task.failure.as_ref().map(|failure| failure.class);
        assert_eq!(reason, life.state().is_final().then_some(class));
    }
}

#[test]
fn attempts_are_bounded_and_wait_longer_each_time() {
    let mut life = Life::new(plain());
    for wait in [1, 2] {
        life.start().finish(failed(Class::Crash));
        assert_eq!(life.state(), State::Pending);
        assert_eq!(life.task.retry_at, Some(life.now + secs(wait)));
        assert_eq!(life.task.ready_at, None);
        life.wait(secs(wait));
        assert_eq!(
            (life.state(), life.task.retry_at, life.task.ready_at),
            (State::Queued, None, Some(life.now))
        );
    }
    life.start().finish(failed(Class::Crash));
    assert_eq!((life.state(), life.task.attempts, life.task.failures), (State::Failed, 3, 3));
    assert_eq!(life.task.failure.unwrap().message, "it went wrong");
}

#[test]
fn one_attempt_means_one() {
    let mut new = plain();
    new.retry.max_attempts = 1;
    let mut life = Life::new(new);
    life.start().finish(failed(Class::Agent));
    assert_eq!(life.state(), State::Failed);
}

#[test]
fn throttling_spends_no_attempt_but_is_bounded() {
    let limits = Limits { timeout: Some(secs(7 * 24 * 3600)), ..plain().limits };
    let mut life = Life::new(New { limits, ..plain() });
    for count in 1..=MAX_WAITS {
        life.start().finish(failed(Class::Overload));
        assert_eq!((life.state(), life.task.waits, life.task.failures), (State::Pending, count, 0));
        life.wait(secs(300));
    }
    life.start().finish(failed(Class::Overload));
    assert_eq!((life.state(), life.task.waits), (State::Failed, MAX_WAITS));
}

#[test]
fn a_told_wait_is_kept() {
    let mut life = Life::new(plain());
    let mut failure = Failure::new(Class::RateLimit, "too many");
    failure.retry_after = Some(secs(77));
    life.start().finish(Ending::Failed(failure));
    // The test's jitter is all of it: a tenth.
    assert_eq!(life.task.retry_at, Some(START + secs(77) + secs(77) / 10));
}

#[test]
fn no_wait_at_all_is_the_queue_at_once() {
    let mut new = plain();
    new.retry.initial_backoff = secs(0);
    let mut life = Life::new(new);
    life.start().finish(failed(Class::Agent));
    assert_eq!((life.state(), life.task.retry_at), (State::Queued, None));
}

#[test]
fn the_total_time_allows_no_retry_after_its_end() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut life = Life::new(New { limits, ..plain() });
    life.start().wait(secs(99)).finish(failed(Class::Agent));
    assert_eq!((life.state(), life.reasons().pop()), (State::Failed, Some("timeout")));
    // The failure that was there stays to be seen.
    assert_eq!(life.task.failure.unwrap().class, Class::Agent);
}

#[test]
fn the_total_time_runs_on_between_attempts() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut life = Life::new(New { limits, ..plain() });
    life.start().finish(failed(Class::Agent));
    life.wait(secs(1));
    assert_eq!((life.state(), life.task.due()), (State::Queued, Some(START + secs(100))));
    life.wait(secs(99));
    assert_eq!((life.state(), life.task.failure.unwrap().class), (State::Failed, Class::Timeout));
}

#[test]
fn the_total_time_ends_a_wait_after_refusals() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut life = Life::new(New { limits, ..plain() });
    life.start().lose(EPOCH);
    life.wait(secs(98));
    life.assign().reject().assign().reject().wait(secs(1)).assign().reject();
    assert_eq!((life.state(), life.task.due()), (State::Pending, Some(START + secs(100))));
    life.wait(secs(1));
    assert_eq!((life.state(), life.task.failure.unwrap().class), (State::Failed, Class::Timeout));
}

#[test]
fn a_silent_worker_holds_no_task_for_ever() {
    let mut life = Life::new(plain());
    life.start().wait(secs(3600));
    assert_eq!(life.state(), State::Running);
    life.wait(life.task.cancel_grace() + CONFIRM_SLACK);
    assert_eq!((life.state(), life.task.failure.unwrap().class), (State::Failed, Class::Timeout));
}
