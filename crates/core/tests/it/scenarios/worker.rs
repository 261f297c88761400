//! Reports of workers: in time, repeated, too late.

use bytes::Bytes;
use rota_core::Fence;
use rota_core::failure::Class;
use rota_core::task::{
    ACCEPT_TIMEOUT, Body, Command, EventEffect, Item, Limits, Loss, MAX_LOGGED_BYTES_OF_TASK,
    MAX_LOGGED_REPORTS, Rejected, Reply, State,
};
use rota_core::usage::Usage;

use crate::harness::*;

#[test]
fn every_report_accepts_the_assignment() {
    let mut harness = Harness::new(plain());
    harness.assign().report(1, vec![item(EventEffect::None)]).unwrap();
    assert_eq!(harness.state(), State::Running);
    let mut harness = Harness::new(plain());
    harness.assign().finish(succeeded());
    assert_eq!(harness.reasons(), ["created", "ready", "assigned", "started", "succeeded"]);
    assert_eq!((harness.task.attempts, harness.task.started_at), (1, Some(START)));
}

#[test]
fn repeated_accept_changes_nothing() {
    let mut harness = Harness::new(plain());
    harness.start();
    let before = harness.task.clone();
    harness.accept();
    assert_eq!(harness.task, before);
}

#[test]
fn late_rejection_hands_the_attempt_back() {
    let mut harness = Harness::new(plain());
    harness.start();
    let reject =
        |harness: &Harness| Command::Reject { attempt: harness.live(), reason: "disk full".to_owned() };
    // As when the worker's session broke after the assignment, and the next one started the attempt.
    let late = reject(&harness);
    harness.apply(late);
    let task = &harness.task;
    assert_eq!((task.state, task.failures, task.worker_losses), (State::Queued, 0, 0));
    assert_eq!(task.avoid.as_ref().map(|worker| worker.as_str()), Some("w1"));
    // One that has begun to work takes nothing back.
    harness.start().report(1, vec![item(EventEffect::None)]).unwrap();
    let late = reject(&harness);
    assert_eq!(harness.try_apply(late).unwrap_err(), Rejected::State(State::Running));
}

#[test]
fn outage_is_no_work() {
    for loss in [Loss::Died, Loss::Planned] {
        let mut harness = Harness::new(plain());
        let began = harness.start().wait(secs(300)).now;
        harness.report(1, vec![item(EventEffect::None)]).unwrap();
        // The machine is off for the night, with the control plane.
        harness.now = harness.now + secs(15 * 3600);
        let session = worker("w1", EPOCH);
        let message = "it did not come back".to_owned();
        harness.apply(Command::LoseWorker { session, loss, seen: Some(began), message });
        assert_eq!((harness.state(), harness.task.worked), (State::Queued, secs(300)), "{loss:?}");
    }
    // The worker ended the attempt itself while the control plane was away.
    let mut harness = Harness::new(plain());
    harness.start();
    harness.now = harness.now + secs(15 * 3600);
    harness.finish(failed(Class::WorkerLost));
    assert_eq!((harness.state(), harness.task.worked), (State::Queued, secs(0)));
}

#[test]
fn worker_that_returns_late_was_not_lost() {
    let mut harness = Harness::new(plain());
    for round in 1..20 {
        // The network is cut for longer than the grace, and another worker takes the task.
        harness.start().wait(secs(60)).lose(EPOCH);
        let fence = harness.task.fence;
        assert_eq!((harness.state(), harness.task.worker_losses), (State::Queued, 1), "round {round}");
        harness.start();
        let by = worker("w1", EPOCH + 1);
        assert_eq!(harness.apply(Command::Resume { by: by.clone(), fence }), Reply::Stale);
        assert_eq!(harness.task.worker_losses, 0);
        // Once only.
        assert_eq!(harness.apply(Command::Resume { by, fence }), Reply::Stale);
        harness.finish(failed(Class::WorkerLost));
        harness.wait(secs(600));
    }
}

#[test]
fn drained_worker_that_was_cut_off_continues() {
    let mut harness = Harness::new(plain());
    harness.start().wait(secs(60));
    harness.lose_by(EPOCH, Loss::Planned);
    assert_eq!((harness.state(), harness.task.hand_backs), (State::Queued, 1));
    let by = worker("w1", EPOCH + 1);
    harness.apply(Command::Resume { by, fence: harness.task.fence });
    assert_eq!((harness.state(), harness.task.hand_backs), (State::Running, 0));
}

#[test]
fn reports_are_deduplicated_without_gaps() {
    let mut harness = Harness::new(plain());
    harness.start();
    let plain_items = |count| vec![item(EventEffect::None); count];
    assert_eq!(harness.report(1, plain_items(3)).unwrap(), Reply::Reported(3));
    let seq = harness.task.log_seq;
    // Known, partly known, and empty batches.
    assert_eq!(harness.report(1, plain_items(3)).unwrap(), Reply::Reported(3));
    assert_eq!(harness.task.log_seq, seq);
    assert_eq!(harness.report(3, plain_items(2)).unwrap(), Reply::Reported(4));
    assert_eq!(harness.task.log_seq, seq + 1);
    assert_eq!(harness.report(5, Vec::new()).unwrap(), Reply::Reported(4));
    let gap = |got| Rejected::Gap { expected: 5, got };
    for first in [0, 6, u64::MAX] {
        assert_eq!(harness.report(first, plain_items(1)).unwrap_err(), gap(first));
    }
    // The next attempt starts at 1 again.
    harness.lose(EPOCH);
    harness.start();
    assert_eq!(harness.report(1, plain_items(1)).unwrap(), Reply::Reported(1));
}

#[test]
fn lost_events_have_one_entry_in_their_place() {
    let mut harness = Harness::new(plain());
    harness.start().report(1, vec![item(EventEffect::None); 2]).unwrap();
    let seq = harness.task.log_seq;
    let lost = || vec![item(EventEffect::Lost(3))];
    assert_eq!(harness.report(3, lost()).unwrap(), Reply::Reported(5));
    assert_eq!(harness.task.log_seq, seq + 1);
    // Again, as after a lost answer.
    assert_eq!(harness.report(3, lost()).unwrap(), Reply::Reported(5));
    assert_eq!(harness.report(6, vec![item(EventEffect::None)]).unwrap(), Reply::Reported(6));
    assert_eq!(harness.task.log_seq, seq + 2);
}

#[test]
fn result_before_its_reports_is_a_gap() {
    let mut harness = Harness::new(plain());
    harness.start().report(1, vec![item(EventEffect::None); 2]).unwrap();
    let attempt = harness.live();
    let end = |last| {
        let (attempt, completion) = (attempt.clone(), succeeded());
        Command::Finish { attempt, last, completion, usage: None, session: String::new(), jitter: 0.0 }
    };
    let before = harness.task.clone();
    assert_eq!(harness.try_apply(end(3)).unwrap_err(), Rejected::Gap { expected: 3, got: 3 });
    assert_eq!(harness.task, before);
    assert_eq!(harness.apply(end(2)), Reply::Done);
    // A result of which the log already has the end is repeated, whatever it counts.
    assert_eq!(harness.apply(end(3)), Reply::Done);
}

#[test]
fn report_gap_does_not_accept() {
    let mut harness = Harness::new(plain());
    harness.assign().report(2, vec![item(EventEffect::None)]).unwrap_err();
    assert_eq!(harness.state(), State::Assigned);
}

#[test]
fn late_result_is_noted_once() {
    let mut harness = Harness::new(plain());
    harness.start().lose(EPOCH);
    harness.start();
    let late = finish(attempt_of("w1", EPOCH, 1), succeeded());
    assert_eq!(harness.apply(late.clone()), Reply::Stale);
    assert_eq!(harness.apply(late), Reply::Stale);
    assert_eq!((harness.state(), harness.notices()), (State::Running, vec!["stale_result"]));
    let never = finish(attempt_of("w1", EPOCH, 3), succeeded());
    assert_eq!(harness.try_apply(never).unwrap_err(), Rejected::UnknownFence(Fence(3)));
}

#[test]
fn late_result_after_timeout_is_noted() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.now = harness.task.due().unwrap();
    harness.apply(Command::TICK);
    assert_eq!(harness.state(), State::Failed);
    assert_eq!(harness.finish(succeeded()), Reply::Stale);
    assert_eq!((harness.state(), harness.notices()), (State::Failed, vec!["stale_result"]));
}

#[test]
fn repeated_success_is_acknowledged() {
    let mut harness = Harness::new(plain());
    harness.start().finish(succeeded());
    let done = harness.try_apply(finish(attempt_of("w1", EPOCH + 1, 1), succeeded())).unwrap();
    assert_eq!((done.reply, done.result, done.ended), (Reply::Done, None, false));
    assert!(harness.notices().is_empty());
    for other in
        [finish(attempt_of("w2", EPOCH, 1), succeeded()), finish(harness.live(), failed(Class::Agent))]
    {
        assert_eq!(harness.apply(other), Reply::Stale);
    }
    assert!(harness.notices().is_empty());
}

#[test]
fn repeated_failure_is_not_noted() {
    let mut harness = Harness::new(plain());
    harness.start().finish(failed(Class::Agent));
    assert_eq!(harness.finish(failed(Class::Agent)), Reply::Stale);
    assert_eq!((harness.task.failures, harness.notices().len()), (1, 0));
}

#[test]
fn usage_accumulates_and_never_decreases() {
    let mut harness = Harness::new(plain());
    harness.start();
    let usage = |amount| vec![item(EventEffect::Usage(tokens(amount)))];
    harness.report(1, usage(100)).unwrap();
    harness.report(2, usage(40)).unwrap();
    assert_eq!(harness.task.total_usage(), tokens(100));
    harness.lose(EPOCH);
    assert_eq!(harness.task.usage, tokens(100));
    harness.start();
    let end = Command::Finish {
        attempt: harness.live(),
        last: 0,
        completion: succeeded(),
        usage: Some(tokens(7)),
        session: "s-1".to_owned(),
        jitter: 0.0,
    };
    harness.apply(end);
    assert_eq!(harness.task.usage, tokens(107));
    assert_eq!(harness.task.session.unwrap().session, "s-1");
}

#[test]
fn log_of_an_attempt_is_bounded() {
    let large = |effect| Item { payload: vec![0; 64 << 20].into(), ..item(effect) };
    let mut harness = Harness::new(plain());
    harness.start();
    for seq in 1..=6 {
        harness.report(seq, vec![large(EventEffect::None)]).unwrap();
    }
    let reports =
        |harness: &Harness| harness.log.iter().filter(|event| matches!(event.body, Body::Report(_))).count();
    assert_eq!(reports(&harness), 4, "256 MiB");
    assert_eq!(harness.notices(), ["log_full"]);
    // What it has used still counts, and it asks and ends as usual.
    let usage = Usage { turns: 3, ..Usage::default() };
    harness.report(7, vec![item(EventEffect::Usage(usage))]).unwrap();
    harness.report(8, vec![request("q1")]).unwrap();
    assert_eq!(harness.state(), State::InputRequired);
    harness.apply(answer("q1"));
    assert_eq!(harness.finish(succeeded()), Reply::Done);
    assert_eq!((harness.state(), harness.task.usage.turns), (State::Succeeded, 3));

    let mut harness = Harness::new(plain());
    harness.start();
    let many: Vec<_> = (0..MAX_LOGGED_REPORTS + 2).map(|_| item(EventEffect::None)).collect();
    harness.report(1, many).unwrap();
    assert_eq!(reports(&harness) as u64, MAX_LOGGED_REPORTS);
    assert_eq!(harness.notices(), ["log_full"]);
    // It may ask for some time, but not without end.
    let seq = MAX_LOGGED_REPORTS + 2;
    harness.report(seq + 1, vec![request("q1")]).unwrap();
    harness.report(seq + 2, (0..10_000).map(|_| item(EventEffect::None)).collect()).unwrap();
    let late = harness.report(seq + 10_002, vec![request("q2")]);
    assert!(matches!(late, Err(Rejected::TooMany(_))));
}

#[test]
fn reports_without_room_are_left_out() {
    let left_out = |effect| Item { payload: Bytes::new(), ..item(effect) };
    let mut harness = Harness::new(plain());
    harness.start();
    harness.report(1, vec![item(EventEffect::None), left_out(EventEffect::None)]).unwrap();
    harness.report(3, vec![left_out(EventEffect::None), request("q1")]).unwrap();
    let reports = harness.log.iter().filter(|event| matches!(event.body, Body::Report(_))).count();
    assert_eq!((reports, harness.state()), (2, State::InputRequired));
    assert_eq!(harness.notices(), ["log_full"]);
    // There was room again in between.
    harness.report(5, vec![left_out(EventEffect::None)]).unwrap();
    assert_eq!(harness.notices(), ["log_full", "log_full"]);
}

#[test]
fn all_attempts_share_the_log() {
    let mut harness = Harness::new(plain());
    let payload = Bytes::from(vec![0; 8 << 20]);
    let large = |_| Item { payload: payload.clone(), ..item(EventEffect::None) };
    let share = MAX_LOGGED_BYTES_OF_TASK >> 23;
    let mut logged = 0;
    while logged < share {
        let part = share.saturating_sub(logged).min(30);
        harness.start().report(1, (0..part).map(large).collect()).unwrap();
        harness.finish(failed(Class::Overload));
        harness.wait(secs(60));
        logged += part;
    }
    harness.start().report(1, vec![large(0)]).unwrap();
    assert_eq!(harness.notices(), ["log_full"]);
}

#[test]
fn progress_is_clamped_to_a_fraction() {
    let mut harness = Harness::new(plain());
    harness.start();
    for (seq, (sent, kept)) in [(0.5, 0.5), (-3.0, 0.0), (7.0, 1.0), (f64::NAN, 0.0)].into_iter().enumerate()
    {
        let progress = rota_core::task::Progress { fraction: sent, step: String::new() };
        harness.report(seq as u64 + 1, vec![item(EventEffect::Progress(progress))]).unwrap();
        assert_eq!(harness.task.progress.as_ref().unwrap().fraction, kept);
    }
}

#[test]
fn unaccepted_assignment_returns_to_queue() {
    let mut harness = Harness::new(plain());
    let ready = harness.task.ready_at;
    harness.assign();
    harness.now = START + ACCEPT_TIMEOUT - secs(1);
    harness.apply(Command::TICK);
    assert_eq!(harness.state(), State::Assigned);
    harness.wait(secs(1));
    assert_eq!((harness.state(), harness.task.attempts, harness.task.ready_at), (State::Queued, 0, ready));
    // The first worker is too late.
    assert_eq!(harness.apply(Command::Accept(attempt_of("w1", EPOCH, 1))), Reply::Stale);
}

#[test]
fn losing_unaccepted_assignment_uses_no_attempt() {
    let mut harness = Harness::new(plain());
    harness.assign().lose(EPOCH);
    assert_eq!((harness.state(), harness.task.worker_losses, harness.task.refusals), (State::Queued, 0, 1));
}

#[test]
fn consecutive_rejections_back_off() {
    let mut harness = Harness::new(plain());
    let ready = harness.task.ready_at;
    let mut waits = Vec::new();
    for _ in 0..10 {
        harness.assign().reject();
        let wait = harness.task.retry_at.map_or(0, |at| at.since(harness.now).as_secs());
        waits.push(wait);
        if wait > 0 {
            assert_eq!(harness.state(), State::Pending);
            harness.wait(secs(wait));
        }
        assert_eq!((harness.state(), harness.task.ready_at), (State::Queued, ready));
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30, 30]);
    assert_eq!((harness.task.attempts, harness.task.failures, harness.task.worker_losses), (0, 0, 0));
    // Jitter: between half and all of the wait.
    let given = |span_id| {
        let (to, agent) = (worker("w1", EPOCH), agent("coder"));
        Command::Assign { to, agent, span_id, defaults: Limits::default(), reserved: 0 }
    };
    for (span_id, wait) in [([0; 8], 15_000), ([0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0], 22_499)] {
        harness.apply(given(span_id));
        harness.reject();
        let waits = harness.task.retry_at.unwrap().since(harness.now);
        assert_eq!(waits.as_millis(), wait);
        harness.wait(waits);
    }
    // An accepted assignment resets the count.
    harness.start().lose(EPOCH);
    harness.assign().reject();
    assert_eq!(harness.state(), State::Queued);
}

#[test]
fn backward_clock_does_not_reverse_time() {
    let mut harness = Harness::new(plain());
    harness.now = START + secs(100);
    harness.start();
    harness.now = START - secs(100);
    harness.finish(succeeded());
    assert_eq!(harness.task.ended_at, harness.task.started_at);
}

#[test]
fn own_end_is_remembered_over_rejections_and_losses() {
    let mut harness = Harness::new(plain());
    harness.start().finish(failed(Class::Agent));
    harness.wait(secs(600)).apply(Command::TICK);
    harness.assign().reject();
    let failure = |harness: &Harness| harness.task.last_failure.as_ref().map(|failure| failure.class);
    assert_eq!((failure(&harness), harness.task.concluded), (Some(Class::Agent), 1));
    harness.wait(secs(600)).apply(Command::TICK);
    harness.start().lose(EPOCH);
    assert_eq!((failure(&harness), harness.task.concluded), (Some(Class::WorkerLost), 1));
}
