//! What a worker says, repeats, says too late, and how it is lost.

use rota_core::failure::Class;
use rota_core::task::{ACCEPT_TIMEOUT, Command, Limits, Meaning, Rejected, Reply, State};
use rota_core::{Epoch, Fence};

use crate::life::*;

#[test]
fn a_lost_worker_leaves_the_task_its_place() {
    let mut life = Life::new(plain());
    let ready = life.task.ready_at;
    life.start().wait(secs(60));
    let rank = life.task.rank();
    assert_eq!(life.lose(EPOCH), Reply::Done);
    assert_eq!((life.state(), life.task.ready_at, life.task.rank()), (State::Queued, ready, rank));
    assert_eq!((life.task.worker_losses, life.task.failures, life.task.attempts), (1, 0, 1));
    life.start();
    assert_eq!((life.task.fence, life.task.attempt()), (Fence(2), 2));
}

#[test]
fn a_worker_that_says_that_it_ends_counts_as_lost() {
    let mut life = Life::new(plain());
    let ready = life.task.ready_at;
    life.start().wait(secs(60)).finish(failed(Class::WorkerLost));
    assert_eq!((life.state(), life.task.ready_at, life.task.retry_at), (State::Queued, ready, None));
    assert_eq!((life.task.worker_losses, life.task.failures), (1, 0));
    for _ in 0..life.task.retry.max_worker_losses {
        life.start().finish(failed(Class::WorkerLost));
    }
    assert_eq!(life.task.failure.as_ref().map(|failure| failure.class), Some(Class::Quarantined));
}

#[test]
fn lost_workers_end_in_quarantine() {
    let mut life = Life::new(plain());
    for _ in 0..life.task.retry.max_worker_losses {
        life.start().lose(EPOCH);
        assert_eq!(life.state(), State::Queued);
    }
    life.start().lose(EPOCH);
    assert_eq!(life.state(), State::Failed);
    let failure = life.task.failure.unwrap();
    assert_eq!(failure.class, Class::Quarantined);
    assert!(failure.message.contains("4 workers") && !failure.hint.is_empty());
}

#[test]
fn an_older_session_loses_nothing() {
    let mut life = Life::new(plain());
    life.start();
    life.does(Command::Resume { by: worker("w1", EPOCH + 1), fence: Fence(1) });
    let before = life.task.clone();
    assert_eq!(life.lose(EPOCH), Reply::Stale);
    assert_eq!(life.task, before);
    assert_eq!(life.lose(EPOCH + 1), Reply::Done);
    assert_eq!(life.state(), State::Queued);
}

#[test]
fn resuming_raises_the_epoch_and_tells_from_where_to_go_on() {
    let mut life = Life::new(plain());
    life.start();
    life.report(1, vec![item(Meaning::Plain), item(Meaning::Plain)]).unwrap();
    let resume = |epoch, fence| Command::Resume { by: worker("w1", epoch), fence: Fence(fence) };
    assert_eq!(life.does(resume(EPOCH + 2, 1)), Reply::Reported(2));
    assert_eq!(life.task.assignment.as_ref().unwrap().epoch, Epoch(EPOCH + 2));
    // Not back again, not with another fence, not as another worker.
    assert_eq!(life.does(resume(EPOCH + 1, 1)), Reply::Stale);
    assert_eq!(life.does(resume(EPOCH + 3, 0)), Reply::Stale);
    let other = Command::Resume { by: worker("w2", EPOCH + 3), fence: Fence(1) };
    assert_eq!(life.does(other), Reply::Stale);
    assert_eq!(life.task.assignment.as_ref().unwrap().epoch, Epoch(EPOCH + 2));
    // What the old session still says no longer counts, and the log keeps silent about it.
    assert_eq!(life.does(finish(held("w1", EPOCH, 1), succeeded())), Reply::Stale);
    assert_eq!((life.state(), life.notices().len()), (State::Running, 0));
    assert_eq!(life.finish(succeeded()), Reply::Done);
    assert_eq!(life.state(), State::Succeeded);
}

#[test]
fn resuming_what_was_only_assigned_takes_it() {
    let mut life = Life::new(plain());
    life.assign();
    life.does(Command::Resume { by: worker("w1", EPOCH + 1), fence: Fence(1) });
    assert_eq!((life.state(), life.task.attempts), (State::Running, 1));
}

#[test]
fn whatever_a_worker_says_of_an_attempt_takes_it() {
    let mut life = Life::new(plain());
    life.assign().report(1, vec![item(Meaning::Plain)]).unwrap();
    assert_eq!(life.state(), State::Running);
    let mut life = Life::new(plain());
    life.assign().finish(succeeded());
    assert_eq!(life.reasons(), ["created", "ready", "assigned", "started", "succeeded"]);
    assert_eq!((life.task.attempts, life.task.started_at), (1, Some(START)));
}

#[test]
fn accepting_twice_is_once() {
    let mut life = Life::new(plain());
    life.start();
    let before = life.task.clone();
    life.accept();
    assert_eq!(life.task, before);
    let reject = Command::Reject { held: life.live(), reason: "changed my mind".to_owned() };
    assert_eq!(life.tries(reject).unwrap_err(), Rejected::State(State::Running));
}

#[test]
fn reports_count_once_and_without_gaps() {
    let mut life = Life::new(plain());
    life.start();
    let plain_items = |count| vec![item(Meaning::Plain); count];
    assert_eq!(life.report(1, plain_items(3)).unwrap(), Reply::Reported(3));
    let seq = life.task.log_seq;
    // Wholly known, partly known, and none at all.
    assert_eq!(life.report(1, plain_items(3)).unwrap(), Reply::Reported(3));
    assert_eq!(life.task.log_seq, seq);
    assert_eq!(life.report(3, plain_items(2)).unwrap(), Reply::Reported(4));
    assert_eq!(life.task.log_seq, seq + 1);
    assert_eq!(life.report(5, Vec::new()).unwrap(), Reply::Reported(4));
    let gap = |got| Rejected::Gap { expected: 5, got };
    for first in [0, 6, u64::MAX] {
        assert_eq!(life.report(first, plain_items(1)).unwrap_err(), gap(first));
    }
    // The next attempt counts from 1 again.
    life.lose(EPOCH);
    life.start();
    assert_eq!(life.report(1, plain_items(1)).unwrap(), Reply::Reported(1));
}

#[test]
fn a_gap_does_not_take_an_assignment() {
    let mut life = Life::new(plain());
    life.assign().report(2, vec![item(Meaning::Plain)]).unwrap_err();
    assert_eq!(life.state(), State::Assigned);
}

#[test]
fn a_late_result_is_noted_once() {
    let mut life = Life::new(plain());
    life.start().lose(EPOCH);
    life.start();
    let late = finish(held("w1", EPOCH, 1), succeeded());
    assert_eq!(life.does(late.clone()), Reply::Stale);
    assert_eq!(life.does(late), Reply::Stale);
    assert_eq!((life.state(), life.notices()), (State::Running, vec!["stale_result"]));
    let never = finish(held("w1", EPOCH, 3), succeeded());
    assert_eq!(life.tries(never).unwrap_err(), Rejected::UnknownFence(Fence(3)));
}

#[test]
fn a_late_result_of_an_overdue_attempt_is_noted() {
    let mut life = Life::new(plain());
    life.start();
    life.now = life.task.due().unwrap();
    life.does(Command::Tick);
    assert_eq!(life.state(), State::Failed);
    assert_eq!(life.finish(succeeded()), Reply::Stale);
    assert_eq!((life.state(), life.notices()), (State::Failed, vec!["stale_result"]));
}

#[test]
fn a_repeated_success_is_told_again_that_it_counts() {
    let mut life = Life::new(plain());
    life.start().finish(succeeded());
    let done = life.tries(finish(held("w1", EPOCH + 1, 1), succeeded())).unwrap();
    assert_eq!((done.reply, done.result, done.ended), (Reply::Done, None, false));
    assert!(life.notices().is_empty());
    for other in [finish(held("w2", EPOCH, 1), succeeded()), finish(life.live(), failed(Class::Agent))] {
        assert_eq!(life.does(other), Reply::Stale);
    }
    assert!(life.notices().is_empty());
}

#[test]
fn a_repeated_failure_is_no_late_result() {
    let mut life = Life::new(plain());
    life.start().finish(failed(Class::Agent));
    assert_eq!(life.finish(failed(Class::Agent)), Reply::Stale);
    assert_eq!((life.task.failures, life.notices().len()), (1, 0));
}

#[test]
fn usage_adds_up_over_attempts_and_never_falls() {
    let mut life = Life::new(plain());
    life.start();
    let usage = |amount| vec![item(Meaning::Usage(tokens(amount)))];
    life.report(1, usage(100)).unwrap();
    life.report(2, usage(40)).unwrap();
    assert_eq!(life.task.total_usage(), tokens(100));
    life.lose(EPOCH);
    assert_eq!(life.task.usage, tokens(100));
    life.start();
    let end = Command::Finish {
        held: life.live(),
        ending: succeeded(),
        usage: Some(tokens(7)),
        session: "s-1".to_owned(),
        jitter: 0.0,
    };
    life.does(end);
    assert_eq!(life.task.usage, tokens(107));
    assert_eq!(life.task.session.unwrap().session, "s-1");
}

#[test]
fn progress_is_a_fraction_whatever_is_sent() {
    let mut life = Life::new(plain());
    life.start();
    for (seq, (sent, kept)) in [(0.5, 0.5), (-3.0, 0.0), (7.0, 1.0), (f64::NAN, 0.0)].into_iter().enumerate()
    {
        let progress = rota_core::task::Progress { fraction: sent, step: String::new() };
        life.report(seq as u64 + 1, vec![item(Meaning::Progress(progress))]).unwrap();
        assert_eq!(life.task.progress.as_ref().unwrap().fraction, kept);
    }
}

#[test]
fn an_assignment_that_is_not_taken_goes_back() {
    let mut life = Life::new(plain());
    let ready = life.task.ready_at;
    life.assign();
    life.now = START + ACCEPT_TIMEOUT - secs(1);
    life.does(Command::Tick);
    assert_eq!(life.state(), State::Assigned);
    life.wait(secs(1));
    assert_eq!((life.state(), life.task.attempts, life.task.ready_at), (State::Queued, 0, ready));
    // Its first worker comes too late.
    assert_eq!(life.does(Command::Accept(held("w1", EPOCH, 1))), Reply::Stale);
}

#[test]
fn losing_the_worker_of_an_untaken_task_costs_nothing() {
    let mut life = Life::new(plain());
    life.assign().lose(EPOCH);
    assert_eq!((life.state(), life.task.worker_losses, life.task.refusals), (State::Queued, 0, 1));
}

#[test]
fn refusals_in_a_row_wait_longer_and_longer_and_spend_nothing() {
    let mut life = Life::new(plain());
    let ready = life.task.ready_at;
    let mut waits = Vec::new();
    for _ in 0..10 {
        life.assign().reject();
        let wait = life.task.retry_at.map_or(0, |at| at.since(life.now).as_secs());
        waits.push(wait);
        if wait > 0 {
            assert_eq!(life.state(), State::Pending);
            life.wait(secs(wait));
        }
        assert_eq!((life.state(), life.task.ready_at), (State::Queued, ready));
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30, 30]);
    assert_eq!((life.task.attempts, life.task.failures, life.task.worker_losses), (0, 0, 0));
    // Never all at once: between half and all of it, as chance has it.
    let given = |span_id| Command::Assign { to: worker("w1", EPOCH), span_id, defaults: Limits::default() };
    for (span_id, wait) in [([0; 8], 15_000), ([0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0], 22_499)] {
        life.does(given(span_id));
        life.reject();
        let waits = life.task.retry_at.unwrap().since(life.now);
        assert_eq!(waits.as_millis(), wait);
        life.wait(waits);
    }
    // Taken once, and the count begins anew.
    life.start().lose(EPOCH);
    life.assign().reject();
    assert_eq!(life.state(), State::Queued);
}

#[test]
fn an_end_that_nobody_asked_for_is_a_lost_worker() {
    let mut life = Life::new(plain());
    life.start().finish(stopped());
    assert_eq!((life.state(), life.task.worker_losses, life.task.failures), (State::Queued, 1, 0));
}

#[test]
fn a_clock_that_falls_back_turns_no_life_around() {
    let mut life = Life::new(plain());
    life.now = START + secs(100);
    life.start();
    life.now = START - secs(100);
    life.finish(succeeded());
    assert_eq!(life.task.ended_at, life.task.started_at);
}
