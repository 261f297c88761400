//! Work that is done and not delivered.

use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::quota::CredentialId;
use rota_core::task::explain::{Context, causes};
use rota_core::task::{Completion, Desired, EventEffect, Limits, State, Task};
use rota_core::usage::Usage;

use crate::harness::*;

#[test]
fn undelivered_work_waits_for_another_delivery() {
    let mut harness = Harness::new(Task { credential: Some(CredentialId([7; 8])), ..plain() });
    harness.start();
    let live = harness.live();
    let done = harness.try_apply(finish(live, undelivered())).unwrap();
    assert_eq!(done.result.as_deref(), Some(&b"result"[..]), "it is stored");
    assert_eq!((harness.state(), harness.task.has_result, harness.task.failures), (State::Pending, false, 0));
    assert_eq!(harness.task.retry_at, Some(harness.now + secs(1)));
    let context = Context { failure: harness.task.last_failure.as_deref().cloned(), ..Context::default() };
    let cause = causes(&harness.task, &context, harness.now).remove(0);
    assert_eq!(cause.code, "delivery");
    assert!(
        cause.message.contains("attempt 1") && cause.message.ends_with("the forge is away"),
        "{}",
        cause.message
    );

    // The next attempt takes neither time nor a model.
    harness.wait(secs(1)).start();
    let assignment = harness.task.assignment.clone().unwrap();
    assert!(harness.task.delivers() && assignment.work_ended && assignment.model.credential.is_none());
    assert_eq!(causes(&harness.task, &Context::default(), harness.now)[0].code, "delivery");
    harness.wait(secs(60));
    let live = harness.live();
    let again = harness.try_apply(finish(live, undelivered())).unwrap();
    assert_eq!((again.result, harness.task.worked), (None, Duration::ZERO), "the first result stays");
    assert_eq!(harness.task.retry_at, Some(harness.now + secs(2)));
    harness.wait(secs(2)).start().finish(succeeded());
    assert_eq!(
        (harness.state(), harness.task.attempts, harness.task.undelivered),
        (State::Succeeded, 3, None)
    );
}

/// A task that was created to deliver what another one has done.
#[test]
fn work_of_another_task_is_delivered() {
    let mut task = plain();
    task.deliver_for_another();
    let mut harness = Harness::new(task);
    assert_eq!(harness.state(), State::Queued);
    harness.start();
    let assignment = harness.task.assignment.clone().unwrap();
    assert!(harness.task.delivers() && assignment.work_ended && assignment.attempt == 2);
    harness.finish(failed(Class::Source));
    assert_eq!((harness.state(), harness.task.failures), (State::Pending, 0), "the work stays done");
    harness.wait(secs(300)).start().finish(failed(Class::Delivery));
    let left = harness.task.undelivered.map(|left| left.attempt);
    assert_eq!((harness.state(), left), (State::Failed, Some(1)), "it can be retried once more");
}

#[test]
fn deliveries_are_tried_for_a_week() {
    let mut harness = Harness::new(plain());
    // Also where the repository cannot be reached from the start, the machine fails, or what the task names is missing.
    let ends = [undelivered(), failed(Class::Environment), failed(Class::Source), failed(Class::Invalid)];
    let mut ends = ends.into_iter().cycle();
    while harness.now < START + secs(7 * 24 * 3600) {
        harness.start().finish(ends.next().unwrap());
        assert_eq!((harness.state(), harness.task.failures, harness.task.waits), (State::Pending, 0, 0));
        harness.wait(secs(300));
    }
    harness.start().finish(failed(Class::Source));
    let left = harness.task.undelivered.map(|left| left.attempt);
    assert_eq!((harness.state(), left), (State::Failed, Some(1)), "what it has left is still found");
    let failure = harness.task.failure.unwrap();
    assert_eq!(failure.class, Class::Delivery, "its hint is that of work which is kept");
    assert!(failure.message.contains("attempt 1") && failure.hint.contains("rota apply-diff"), "{failure:?}");
}

#[test]
fn waits_for_deliveries_name_the_kept_changes() {
    let mut harness = Harness::new(plain());
    harness.start().finish(undelivered());
    harness.wait(secs(1)).start();
    let failure = Failure { hint: "give the secret".to_owned(), ..Failure::new(Class::Invalid, "no secret") };
    harness.finish(Completion::Failed(failure));
    assert_eq!(harness.state(), State::Pending);
    let hint = harness.task.last_failure.as_deref().unwrap().hint.clone();
    assert!(hint.starts_with("give the secret; ") && hint.contains("rota apply-diff"), "{hint}");
}

#[test]
fn deliveries_wait_longer_than_impatient_policies() {
    let mut harness = Harness::new(plain());
    harness.task.retry.initial_backoff = Duration::ZERO;
    for wait in [1, 2, 4] {
        harness.start().finish(undelivered());
        let shortest = harness.now + secs(wait) / 2;
        assert!(harness.task.retry_at >= Some(shortest), "{:?}", harness.task.retry_at);
        harness.wait(secs(wait));
    }
}

#[test]
fn deliveries_are_retried_after_losses_and_not_after_refusals() {
    let mut harness = Harness::new(plain());
    harness.start().finish(undelivered());
    harness.wait(secs(1)).start().finish(failed(Class::Crash));
    assert!(harness.state() == State::Pending && harness.task.delivers());
    harness.wait(secs(10)).start().finish(failed(Class::Delivery));
    assert_eq!(harness.state(), State::Failed);
}

#[test]
fn deliveries_need_neither_time_nor_money() {
    let limits = Limits { timeout: Some(secs(60)), budget_micro_usd: Some(10), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.start();
    let spent = Usage { cost_micro_usd: 10, ..Usage::default() };
    harness.report(1, vec![item(EventEffect::Usage(spent))]).unwrap();
    harness.now = harness.now + secs(60);
    harness.finish(undelivered());
    assert_eq!(harness.state(), State::Pending, "{:?}", harness.task.failure);
    harness.wait(secs(1));
    assert_eq!(harness.state(), State::Queued, "{:?}", harness.task.failure);
    assert!(harness.task.time_left() > secs(3600));
    harness.start().wait(secs(3600)).finish(succeeded());
    assert_eq!(harness.state(), State::Succeeded);
}

#[test]
fn cancelled_deliveries_end() {
    let mut harness = Harness::new(plain());
    harness.start().finish(undelivered());
    harness.apply(update(Desired::Cancelled));
    assert_eq!((harness.state(), harness.task.undelivered), (State::Cancelled, None));
    let mut harness = Harness::new(plain());
    harness.start();
    harness.apply(update(Desired::Cancelled));
    harness.finish(undelivered());
    assert_eq!(harness.state(), State::Cancelled);
}

#[test]
fn forges_are_not_asked_before_they_want_to_be() {
    let mut harness = Harness::new(plain());
    let mut failure = Failure::new(Class::Delivery, "the rate limit is reached");
    failure.retry_after = Some(secs(7200));
    harness.start().finish(Completion::Undelivered { failure, result: bytes::Bytes::new() });
    assert_eq!(harness.task.retry_at, Some(START + secs(7200) + secs(720)));
}

/// The request to end it may come while the worker takes it.
#[test]
fn stop_before_its_start_gives_no_delivery_up() {
    let mut task = plain();
    task.deliver_for_another();
    let mut harness = Harness::new(task);
    harness.assign();
    harness.try_apply(stop(harness.task.fence, false)).unwrap();
    assert!(harness.task.confirm_by.is_some());
    harness.report(1, vec![item(EventEffect::None)]).unwrap();
    assert_eq!(harness.task.confirm_by, None);
    harness.wait(secs(3600));
    assert_eq!(harness.state(), State::Running, "its host is away");
}
