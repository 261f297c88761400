//! Precedence of limits: the task's, its agent's, the defaults; in any order of arrival.

use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::task::explain::{Context, causes};
use rota_core::task::{
    Command, Completion, DEFAULT_CANCEL_GRACE, DEFAULT_TIMEOUT, Desired, EventEffect, Limits, State, Task,
};

use crate::harness::*;

const AGENTS: Limits = Limits {
    timeout: Some(secs(100)),
    queue_timeout: Some(secs(60)),
    cancel_grace: Some(secs(3)),
    budget_micro_usd: None,
};

fn given(to: &str, defaults: Limits) -> Command {
    Command::Assign { to: worker(to, EPOCH), agent: agent("coder"), span_id: [7; 8], defaults, reserved: 0 }
}

#[test]
fn task_limits_override_agent_limits() {
    let mut harness = Harness::new(Task { agent_known: false, ..plain() });
    let task = &harness.task;
    assert_eq!(
        (task.timeout(), task.queue_timeout(), task.cancel_grace()),
        (DEFAULT_TIMEOUT, None, DEFAULT_CANCEL_GRACE)
    );
    harness.apply(appeared(AGENTS));
    let task = &harness.task;
    assert_eq!(
        (task.timeout(), task.queue_timeout(), task.cancel_grace()),
        (secs(100), Some(secs(60)), secs(3))
    );

    let limits = Limits {
        timeout: Some(secs(7)),
        queue_timeout: Some(secs(8)),
        cancel_grace: Some(secs(9)),
        budget_micro_usd: None,
    };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.apply(appeared(AGENTS));
    harness.apply(given("w1", AGENTS));
    let task = &harness.task;
    assert_eq!(
        (task.timeout(), task.queue_timeout(), task.cancel_grace()),
        (secs(7), Some(secs(8)), secs(9))
    );
}

#[test]
fn late_agent_queue_timeout_counts_from_ready() {
    let mut harness = Harness::new(Task { agent_known: false, ..plain() });
    harness.wait(secs(1000)).apply(appeared(AGENTS));
    assert_eq!((harness.state(), harness.task.ready_at), (State::Queued, Some(START + secs(1000))));
    harness.wait(secs(59));
    assert_eq!(harness.state(), State::Queued);
    harness.wait(secs(1));
    assert_eq!(harness.task.failure.as_ref().unwrap().class, Class::QueueTimeout);
}

#[test]
fn assigned_worker_brings_its_agent_limits() {
    let mut harness = Harness::new(Task { target: capabilities(), ..plain() });
    harness.apply(given("w1", AGENTS));
    let bounds = |task: &Task| (task.timeout(), task.queue_timeout(), task.cancel_grace());
    assert_eq!(bounds(&harness.task), (secs(100), None, secs(3)), "it waits for anybody, not for this agent");
    harness.reject();
    assert_eq!(harness.state(), State::Queued);
    harness.wait(secs(61));
    harness.apply(given("w2", Limits::default()));
    assert_eq!(bounds(&harness.task), (DEFAULT_TIMEOUT, None, DEFAULT_CANCEL_GRACE));
    // An attempt keeps the limits it was assigned with.
    harness.accept().apply(appeared(AGENTS));
    assert_eq!(bounds(&harness.task), (DEFAULT_TIMEOUT, None, DEFAULT_CANCEL_GRACE));
}

#[test]
fn limits_of_older_records_decode() {
    #[derive(serde::Serialize)]
    struct Old {
        timeout: Duration,
        queue_timeout: Option<Duration>,
        cancel_grace: Duration,
    }
    let old = Old { timeout: secs(5), queue_timeout: None, cancel_grace: secs(6) };
    let packed = rmp_serde::to_vec_named(&old).unwrap();
    let read = Limits {
        timeout: Some(secs(5)),
        queue_timeout: None,
        cancel_grace: Some(secs(6)),
        budget_micro_usd: None,
    };
    assert_eq!(rmp_serde::from_slice::<Limits>(&packed).unwrap(), read);
}

/// What an attempt leaves may take longer to store than its task has time.
#[test]
fn time_to_store_what_is_left_is_no_work() {
    let mut harness = Harness::new(plain());
    harness.start().report(1, Vec::new()).unwrap();
    harness.now = harness.task.deadline().unwrap();
    let late = |mut harness: Harness| {
        harness.now = harness.now + Duration::from_secs(24 * 3600);
        harness.apply(Command::TICK);
        harness.state()
    };
    assert_eq!(late(harness.clone()), State::Failed);
    harness.report(1, vec![item(EventEffect::WorkEnded(None))]).unwrap();
    assert_eq!(late(harness), State::Running);
}

#[test]
fn attempt_that_only_stores_what_is_left_has_a_limit() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.report(1, vec![item(EventEffect::WorkEnded(None))]).unwrap();
    harness.wait(secs(23 * 3600));
    assert_eq!(harness.state(), State::Running, "the storage may be down for long");
    harness.wait(secs(3700));
    assert_eq!((harness.state(), harness.task.failures), (State::Queued, 0), "the work was in time");
    // A delivery, too, is tried again, without the work.
    let mut harness = Harness::new(plain());
    let failure = Failure::new(Class::Delivery, "the host is away");
    harness.start().finish(Completion::Undelivered { failure, result: bytes::Bytes::new() });
    harness.wait(secs(3600)).start().wait(secs(25 * 3600));
    assert_eq!((harness.state(), harness.task.delivers()), (State::Queued, true));
}

/// What waits for the storage of what it is given does not work, however often it tries.
#[test]
fn attempts_without_their_files_have_not_worked() {
    let limits = Limits { timeout: Some(secs(20)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    let away = || Failure { of_storage: true, ..Failure::new(Class::Source, "the storage is away") };
    for _ in 0..3 {
        harness.start().wait(secs(19)).finish(Completion::Failed(away()));
        assert_eq!((harness.state(), harness.task.worked), (State::Pending, Duration::ZERO));
        harness.wait(secs(300));
    }
    // Its work counts, although the storage then takes none of its files.
    harness.start().wait(secs(19));
    harness.report(1, vec![item(EventEffect::WorkEnded(None))]).unwrap();
    harness.wait(secs(60)).finish(Completion::Failed(away()));
    assert_eq!((harness.state(), harness.task.worked), (State::Pending, secs(19)));
}

/// What an attempt has left without a slot waits much longer, for the disk that has it.
#[test]
fn files_without_a_slot_wait_for_their_worker() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness
        .report(1, vec![item(EventEffect::WorkEnded(None)), item(EventEffect::WorkEnded(Some(true)))])
        .unwrap();
    assert!(harness.task.waits_for_its_worker());
    let since = harness.task.storing().unwrap().since;
    harness.wait(secs(24 * 3600));
    harness.report(3, vec![item(EventEffect::WorkEnded(Some(true)))]).unwrap();
    assert_eq!(harness.task.storing().unwrap().since, since, "it is reported again by another process");
    let mut cancelled = harness.clone();
    cancelled.update(Desired::Cancelled).wait(secs(60));
    assert_eq!(cancelled.state(), State::Cancelled);
    let mut stored = harness.clone();
    stored.finish(succeeded());
    assert_eq!(stored.state(), State::Succeeded);
    harness.wait(secs(5 * 24 * 3600));
    assert_eq!(harness.state(), State::Running);
    harness.wait(secs(24 * 3600 + 60));
    assert_eq!((harness.state(), harness.task.failures, harness.task.worker_losses), (State::Queued, 0, 0));
}

#[test]
fn files_on_a_disk_that_ends_with_its_worker_are_lost_with_it() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.report(1, vec![item(EventEffect::WorkEnded(Some(false)))]).unwrap();
    assert!(harness.task.storing().is_some() && !harness.task.waits_for_its_worker());
    harness.lose(EPOCH);
    // Its programs had ended: they did not end the worker.
    assert_eq!((harness.state(), harness.task.worker_losses, harness.task.hand_backs), (State::Queued, 0, 1));
    // It may only have been cut off.
    harness.apply(Command::Resume { by: worker("w1", EPOCH + 1), fence: harness.task.fence });
    assert_eq!((harness.state(), harness.task.hand_backs), (State::Running, 0));
    assert!(harness.task.storing().is_some());
}

/// An attempt that another one keeps from its workspace does not work, however long that takes.
#[test]
fn time_until_the_workspace_is_free_is_no_work() {
    let limits = Limits { timeout: Some(secs(20)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.start().wait(secs(5));
    harness.report(1, vec![item(EventEffect::HeldUp)]).unwrap();
    harness.wait(secs(3600));
    // What it is sent meanwhile does not begin its work, nor does a worker that was away.
    harness.apply(answer(""));
    harness.lose(EPOCH);
    harness.apply(Command::Resume { by: worker("w1", EPOCH + 1), fence: harness.task.fence });
    harness.wait(secs(3600));
    // Nor does a notice, such as that what it was sent was dropped.
    harness.report(2, vec![item(EventEffect::Notice)]).unwrap();
    let most = secs(24 * 3600 - 2 * 3600);
    assert_eq!((harness.state(), harness.task.deadline()), (State::Running, Some(harness.now + most)));
    let found = causes(&harness.task, &Context::default(), harness.now);
    assert_eq!(found[0].code, "workspace_busy");
    let (mut ends, mut stays) = (harness.clone(), harness.clone());
    // Its worker only sends heartbeats.
    stays.wait(most + secs(3600));
    assert_eq!(stays.state(), State::Failed);
    harness.report(3, vec![item(EventEffect::None)]).unwrap();
    assert_eq!(harness.task.deadline(), Some(harness.now + secs(15)));
    ends.finish(Completion::Failed(Failure::new(Class::Agent, "it failed")));
    assert_eq!(ends.task.worked, secs(5));
}
