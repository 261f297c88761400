//! Workers that are lost or stop, and workers that come back.

use rota_core::failure::Class;
use rota_core::task::{CONFIRM_SLACK, Command, Desired, EventEffect, Loss, Reply, State};
use rota_core::usage::Usage;
use rota_core::{Epoch, Fence};

use crate::harness::*;

#[test]
fn lost_worker_keeps_the_rank() {
    let mut harness = Harness::new(plain());
    let ready = harness.task.ready_at;
    harness.start().wait(secs(60));
    let rank = harness.task.rank();
    assert_eq!(harness.lose(EPOCH), Reply::Done);
    assert_eq!((harness.state(), harness.task.ready_at, harness.task.rank()), (State::Queued, ready, rank));
    assert_eq!((harness.task.worker_losses, harness.task.failures, harness.task.attempts), (1, 0, 1));
    harness.start();
    assert_eq!((harness.task.fence, harness.task.attempt()), (Fence(2), 2));
}

#[test]
fn planned_stops_never_quarantine() {
    for planned in [
        (|harness| harness.finish(failed(Class::WorkerLost))) as fn(&mut Harness) -> Reply,
        |harness| harness.finish(stopped()),
        |harness| harness.lose_by(EPOCH, Loss::Planned),
    ] {
        let mut harness = Harness::new(plain());
        let ready = harness.task.ready_at;
        harness.start().wait(secs(60));
        planned(&mut harness);
        let task = &harness.task;
        assert_eq!((harness.state(), task.ready_at, task.retry_at), (State::Queued, ready, None));
        for _ in 0..20 {
            harness.start();
            planned(&mut harness);
            // A worker that hands everything back does not spin.
            assert_eq!((harness.state(), harness.task.ready_at), (State::Pending, ready));
            harness.wait(secs(30));
        }
        let task = &harness.task;
        assert_eq!((harness.state(), task.hand_backs), (State::Queued, 21));
        assert_eq!((task.worker_losses, task.failures, task.attempts), (0, 0, 21));
    }
}

#[test]
fn planned_stop_confirms_a_cancellation() {
    let mut harness = Harness::new(plain());
    harness.start().update(Desired::Cancelled).lose_by(EPOCH, Loss::Planned);
    assert_eq!((harness.state(), harness.task.hand_backs), (State::Cancelled, 0));
}

#[test]
fn deaths_before_acceptance_quarantine_task() {
    let mut harness = Harness::new(plain());
    let mut deaths = 0;
    while !harness.state().is_final() {
        harness.assign().lose(EPOCH);
        harness.wait(secs(30));
        deaths += 1;
        assert_eq!(harness.task.worker_losses, u32::max(deaths, 2) - 2);
    }
    assert_eq!(deaths, 2 + harness.task.retry.max_worker_losses + 1);
    assert_eq!(harness.task.failure.unwrap().class, Class::Quarantined);
    // An assignment that never arrived proves nothing.
    let mut harness = Harness::new(plain());
    for _ in 0..20 {
        harness.assign().lose_by(EPOCH, Loss::Undelivered);
        harness.wait(secs(30));
    }
    assert_eq!((harness.state(), harness.task.worker_losses), (State::Queued, 0));
}

#[test]
fn returning_worker_may_report_before_judgement() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.now = harness.task.due().unwrap() + secs(3600);
    harness.apply(Command::Resume { by: worker("w1", EPOCH + 1), fence: Fence(1) });
    assert_eq!(harness.task.due(), Some(harness.now + CONFIRM_SLACK));
    harness.wait(secs(1));
    assert_eq!(harness.finish(succeeded()), Reply::Done);
    assert_eq!(harness.state(), State::Succeeded);
}

#[test]
fn too_many_lost_workers_quarantine_task() {
    let mut harness = Harness::new(plain());
    for _ in 0..harness.task.retry.max_worker_losses {
        harness.start().lose(EPOCH);
        assert_eq!(harness.state(), State::Queued);
    }
    harness.start().lose(EPOCH);
    assert_eq!(harness.state(), State::Failed);
    let failure = harness.task.failure.unwrap();
    assert_eq!(failure.class, Class::Quarantined);
    assert!(failure.message.contains("4 workers") && !failure.hint.is_empty());
}

#[test]
fn older_session_loses_nothing() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.apply(Command::Resume { by: worker("w1", EPOCH + 1), fence: Fence(1) });
    let before = harness.task.clone();
    assert_eq!(harness.lose(EPOCH), Reply::Stale);
    assert_eq!(harness.task, before);
    assert_eq!(harness.lose(EPOCH + 1), Reply::Done);
    assert_eq!(harness.state(), State::Queued);
}

#[test]
fn resume_raises_epoch_and_returns_position() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.report(1, vec![item(EventEffect::None), item(EventEffect::None)]).unwrap();
    let resume = |epoch, fence| Command::Resume { by: worker("w1", epoch), fence: Fence(fence) };
    assert_eq!(harness.apply(resume(EPOCH + 2, 1)), Reply::Reported(2));
    assert_eq!(harness.task.assignment.as_ref().unwrap().epoch, Epoch(EPOCH + 2));
    // Not with an older epoch, another fence, or as another worker.
    assert_eq!(harness.apply(resume(EPOCH + 1, 1)), Reply::Stale);
    assert_eq!(harness.apply(resume(EPOCH + 3, 0)), Reply::Stale);
    let other = Command::Resume { by: worker("w2", EPOCH + 3), fence: Fence(1) };
    assert_eq!(harness.apply(other), Reply::Stale);
    assert_eq!(harness.task.assignment.as_ref().unwrap().epoch, Epoch(EPOCH + 2));
    // Reports of the old session are stale, without a notice.
    assert_eq!(harness.apply(finish(attempt_of("w1", EPOCH, 1), succeeded())), Reply::Stale);
    assert_eq!((harness.state(), harness.notices().len()), (State::Running, 0));
    assert_eq!(harness.finish(succeeded()), Reply::Done);
    assert_eq!(harness.state(), State::Succeeded);
}

#[test]
fn lost_worker_returns_before_another_attempt() {
    let usage = |turns| Usage { turns, ..Usage::default() };
    let mut harness = Harness::new(plain());
    harness.start();
    harness.report(1, vec![item(EventEffect::Usage(usage(2))), request("q1")]).unwrap();
    harness.wait(secs(10));
    harness.lose(EPOCH);
    assert_eq!((harness.state(), harness.task.worker_losses), (State::Queued, 1));
    harness.wait(secs(10));
    // Not as another worker, with another fence, or in an older session.
    let resume = |name, epoch, fence| Command::Resume { by: worker(name, epoch), fence: Fence(fence) };
    for stale in [resume("w2", EPOCH + 1, 1), resume("w1", EPOCH - 1, 1), resume("w1", EPOCH + 1, 0)] {
        assert_eq!(harness.apply(stale), Reply::Stale);
    }
    assert_eq!(harness.apply(resume("w1", EPOCH + 1, 1)), Reply::Reported(2));
    assert_eq!((harness.state(), harness.task.worker_losses), (State::InputRequired, 0));
    assert_eq!(harness.task.attempts, 1);
    let later = attempt_of("w1", EPOCH + 1, 1);
    let last = vec![item(EventEffect::InputResolved("q1".to_owned())), item(EventEffect::Usage(usage(3)))];
    harness.report(3, last).unwrap();
    harness.wait(secs(10));
    assert_eq!(harness.apply(finish(later, succeeded())), Reply::Done);
    assert_eq!((harness.state(), harness.task.usage.turns), (State::Succeeded, 3));
    // The time of the question does not count, that of the absence does not either: it waited meanwhile.
    assert_eq!(harness.task.worked, secs(10));
}

#[test]
fn lost_worker_returns_after_another_assignment() {
    let mut harness = Harness::new(plain());
    harness.start().lose(EPOCH);
    harness.assign();
    let resume = Command::Resume { by: worker("w1", EPOCH + 1), fence: Fence(1) };
    assert_eq!(harness.apply(resume.clone()), Reply::Stale);
    // That one is not accepted, but its fence is the newest.
    harness.reject();
    assert_eq!(harness.apply(resume), Reply::Stale);
    assert_eq!(harness.state(), State::Queued);
}

#[test]
fn resume_accepts_the_assignment() {
    let mut harness = Harness::new(plain());
    harness.assign();
    harness.apply(Command::Resume { by: worker("w1", EPOCH + 1), fence: Fence(1) });
    assert_eq!((harness.state(), harness.task.attempts), (State::Running, 1));
}

#[test]
fn unclear_losses_weigh_a_quarter() {
    let mut harness = Harness::new(plain());
    for death in 1..=15 {
        harness.start().wait(secs(60));
        harness.lose_by(EPOCH, Loss::Unclear);
        // The suspects of one death do not all run again together.
        let waits = if death == 1 { State::Queued } else { State::Pending };
        assert_eq!((harness.state(), harness.task.worker_losses), (waits, death));
        harness.wait(secs(300));
        assert_eq!(harness.state(), State::Queued);
    }
    // A task that ends each worker is found out all the same.
    harness.start().lose_by(EPOCH, Loss::Unclear);
    assert_eq!(harness.state(), State::Failed);
    assert_eq!(harness.task.failure.as_ref().map(|failure| failure.class), Some(Class::Quarantined));
}

#[test]
fn unclear_loss_is_taken_back() {
    let mut harness = Harness::new(plain());
    harness.start().lose_by(EPOCH, Loss::Unclear);
    assert_eq!(harness.task.unclear_losses, [Fence(1)]);
    harness.apply(Command::Resume { by: worker("w1", EPOCH + 1), fence: Fence(1) });
    assert_eq!((harness.state(), harness.task.worker_losses), (State::Running, 0));
    assert!(harness.task.unclear_losses.is_empty());
}
