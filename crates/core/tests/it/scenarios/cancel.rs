//! Cancellation and suspension.

use rota_core::failure::Class;
use rota_core::rank::Priority;
use rota_core::task::{CONFIRM_SLACK, Command, Desired, Rejected, Reply, State};

use crate::harness::*;

#[test]
fn waiting_task_is_cancelled_immediately() {
    for new in [plain(), rota_core::task::Task { agent_known: false, ..plain() }] {
        let mut harness = Harness::new(new);
        let done = harness.try_apply(update(Desired::Cancelled)).unwrap();
        assert!(done.ended);
        assert_eq!((harness.state(), harness.task.ended_at), (State::Cancelled, Some(START)));
    }
}

#[test]
fn task_created_cancelled_ends() {
    let harness = Harness::new(rota_core::task::Task { desired: Desired::Cancelled, ..plain() });
    assert_eq!((harness.state(), harness.reasons()), (State::Cancelled, vec!["created", "cancelled"]));
}

#[test]
fn running_task_ends_on_worker_confirmation() {
    let mut harness = Harness::new(plain());
    harness.start().update(Desired::Cancelled);
    assert_eq!((harness.state(), harness.task.desired), (State::Running, Desired::Cancelled));
    assert_eq!(harness.task.due(), Some(START + secs(10) + CONFIRM_SLACK));
    harness.finish(stopped());
    assert_eq!(
        (harness.state(), harness.task.confirm_by, harness.task.worker_losses),
        (State::Cancelled, None, 0)
    );
}

#[test]
fn cancelled_task_never_succeeds_or_fails() {
    for completion in [succeeded(), failed(Class::Agent), failed(Class::RateLimit)] {
        let mut harness = Harness::new(plain());
        harness.start().update(Desired::Cancelled);
        let done = harness.try_apply(finish(harness.live(), completion)).unwrap();
        assert_eq!((harness.state(), done.result, harness.task.has_result), (State::Cancelled, None, false));
    }
}

#[test]
fn unconfirmed_cancellation_expires() {
    let mut harness = Harness::new(plain());
    harness.start().update(Desired::Cancelled).wait(secs(39));
    assert_eq!(harness.state(), State::Running);
    // Neither a repetition nor another update moves the deadline.
    let priority = Some(Priority::HIGH);
    harness.apply(Command::Update { priority, labels: None, desired: None, reason: String::new() });
    harness.update(Desired::Cancelled).wait(secs(1));
    assert_eq!(harness.state(), State::Cancelled);
}

#[test]
fn cancelled_assignment_ends_on_any_return() {
    let ways: [fn(&mut Harness); 4] = [
        |harness| {
            harness.reject();
        },
        |harness| {
            harness.lose(EPOCH);
        },
        |harness| {
            harness.accept().finish(stopped());
        },
        |harness| {
            harness.wait(secs(10));
        },
    ];
    for way in ways {
        let mut harness = Harness::new(plain());
        harness.assign().update(Desired::Cancelled);
        assert_eq!(harness.state(), State::Assigned);
        way(&mut harness);
        assert_eq!(harness.state(), State::Cancelled, "{:?}", harness.reasons());
    }
}

#[test]
fn losing_worker_completes_cancellation() {
    let mut harness = Harness::new(plain());
    harness.start().update(Desired::Cancelled).lose(EPOCH);
    assert_eq!((harness.state(), harness.task.worker_losses), (State::Cancelled, 0));
}

#[test]
fn cancellation_is_irreversible() {
    let mut harness = Harness::new(plain());
    harness.start().update(Desired::Cancelled);
    for desired in [Desired::Run, Desired::Suspended] {
        assert_eq!(harness.try_apply(update(desired)).unwrap_err(), Rejected::Cancelling);
    }
    harness.finish(stopped());
    assert_eq!(harness.try_apply(update(Desired::Run)).unwrap_err(), Rejected::Cancelling);
    assert_eq!(harness.apply(update(Desired::Cancelled)), Reply::Done);
}

#[test]
fn ended_task_accepts_only_labels() {
    let mut harness = Harness::new(plain());
    harness.start().finish(succeeded());
    let labels = Some([("team".to_owned(), "a".to_owned())].into());
    let change =
        |priority, labels| Command::Update { priority, labels, desired: None, reason: String::new() };
    harness.apply(change(None, labels.clone()));
    assert_eq!(Some(harness.task.labels.clone()), labels);
    let refused = harness.try_apply(change(Some(Priority::HIGH), None)).unwrap_err();
    assert_eq!(refused, Rejected::Final(State::Succeeded));
    assert_eq!(harness.try_apply(update(Desired::Cancelled)).unwrap_err(), Rejected::Final(State::Succeeded));
    // An update without a difference is no change.
    let seq = harness.task.log_seq;
    harness.apply(change(Some(Priority::NORMAL), labels));
    assert_eq!((harness.state(), harness.task.log_seq), (State::Succeeded, seq));
}

#[test]
fn suspended_task_resumes() {
    let mut harness = Harness::new(plain());
    harness.update(Desired::Suspended);
    assert_eq!((harness.state(), harness.task.ready_at, harness.task.due()), (State::Pending, None, None));
    harness.wait(secs(600)).update(Desired::Run);
    assert_eq!((harness.state(), harness.task.ready_at), (State::Queued, Some(START + secs(600))));
}

#[test]
fn suspending_running_task_holds_next_attempt() {
    let mut harness = Harness::new(plain());
    harness.start().update(Desired::Suspended);
    assert_eq!(harness.state(), State::Running);
    harness.lose(EPOCH);
    assert_eq!((harness.state(), harness.task.worker_losses), (State::Pending, 1));
    harness.update(Desired::Run).start().finish(succeeded());
    assert_eq!(harness.state(), State::Succeeded);
}
