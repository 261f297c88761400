//! Input requests, answers, and unsolicited messages.

use std::time::Duration;

use bytes::Bytes;
use rota_core::Timestamp;
use rota_core::failure::Class;
use rota_core::task::{Body, Command, EventEffect, Item, Rejected, Reply, State};

use crate::harness::*;

fn asked(questions: &[&str]) -> Harness {
    let mut harness = Harness::new(plain());
    harness.start().report(1, questions.iter().map(|question| request(question)).collect()).unwrap();
    harness
}

#[test]
fn input_request_waits_for_its_answer() {
    let mut harness = asked(&["q1"]);
    assert_eq!(harness.state(), State::InputRequired);
    let unknown = harness.try_apply(answer("q9")).unwrap_err();
    assert_eq!(unknown, Rejected::NoSuchQuestion("q9".to_owned()));
    assert_eq!(harness.apply(answer("q1")), Reply::InputSeq(1));
    assert_eq!(harness.state(), State::Running);
    assert_eq!(harness.reasons().split_off(4), ["input_required", "input_settled"]);
    assert!(harness.log.iter().any(|event| matches!(event.body, Body::Input { seq: 1, .. })));
}

/// A worker that comes back with a later attempt would be sent a whole log, of which nothing is for it.
#[test]
fn inputs_of_earlier_attempts_are_not_missed() {
    let mut harness = asked(&["q1"]);
    harness.apply(answer("q1"));
    assert_eq!((harness.task.missed_inputs(0), harness.task.missed_inputs(1)), (Some(0), None));
    harness.lose(EPOCH);
    harness.start();
    assert_eq!(harness.task.missed_inputs(0), None);
    harness.report(1, vec![request("q2")]).unwrap();
    harness.apply(answer("q2"));
    assert_eq!((harness.task.missed_inputs(0), harness.task.missed_inputs(2)), (Some(1), None));
}

/// A question that could not be reported for a while stops the total time from when it was asked, as on the worker.
#[test]
fn question_stops_the_time_when_it_is_asked() {
    let mut harness = Harness::new(plain());
    harness.start().report(1, Vec::new()).unwrap();
    let (begun, deadline) = (harness.now, harness.task.deadline().unwrap());
    harness.now = begun + Duration::from_secs(900);
    let asked = Item { at: begun + Duration::from_secs(60), ..request("q1") };
    harness.report(1, vec![asked]).unwrap();
    harness.now = begun + Duration::from_secs(1000);
    harness.apply(answer("q1"));
    assert_eq!(harness.task.deadline(), Some(deadline + Duration::from_secs(940)));
    // A skewed clock of the worker moves it neither before the last report nor into the future.
    for skewed in [Timestamp(0), harness.now + Duration::from_secs(10_000)] {
        let mut harness = harness.clone();
        let (before, deadline) = (harness.now, harness.task.deadline().unwrap());
        harness.report(2, Vec::new()).unwrap();
        harness.now = before + Duration::from_secs(100);
        harness.report(2, vec![Item { at: skewed, ..request("q2") }]).unwrap();
        harness.now = before + Duration::from_secs(150);
        harness.apply(answer("q2"));
        let moved = harness.task.deadline().unwrap().since(deadline);
        let expected = if skewed == Timestamp(0) { 150 } else { 50 };
        assert_eq!(moved, Duration::from_secs(expected));
    }
}

#[test]
fn answer_counts_once_and_is_repeatable() {
    let other = || Command::GiveInput {
        request: "q1".to_owned(),
        payload: Bytes::from_static(b"that one"),
        grant: None,
    };
    let mut harness = asked(&["q1", "q2"]);
    harness.apply(answer("q2"));
    assert_eq!(harness.apply(answer("q1")), Reply::InputSeq(2));
    let repeat = |harness: &mut Harness| {
        let (task, log) = (harness.task.clone(), harness.log.len());
        assert_eq!(harness.apply(answer("q1")), Reply::InputSeq(2));
        assert_eq!((&task, log), (&harness.task, harness.log.len()), "a repetition left traces");
    };
    repeat(&mut harness);
    assert_eq!(harness.try_apply(other()).unwrap_err(), Rejected::NoSuchQuestion("q1".to_owned()));
    harness.lose(EPOCH);
    repeat(&mut harness);
    harness.start();
    repeat(&mut harness);
    // A repeated request is a new one.
    harness.report(1, vec![request("q1")]).unwrap();
    assert_eq!(harness.apply(other()), Reply::InputSeq(3));
    assert_eq!(harness.state(), State::Running);
    assert_eq!(harness.try_apply(answer("q1")).unwrap_err(), Rejected::NoSuchQuestion("q1".to_owned()));
    harness.finish(succeeded());
    assert_eq!(harness.apply(other()), Reply::InputSeq(3));
    assert_eq!(harness.try_apply(answer("q1")).unwrap_err(), Rejected::Final(State::Succeeded));
}

#[test]
fn remembered_answers_are_bounded() {
    let mut harness = asked(&[]);
    for number in 0..40 {
        harness.report(number + 1, vec![request(&format!("q{number}"))]).unwrap();
        harness.apply(answer(&format!("q{number}")));
    }
    assert_eq!(harness.task.answered.len(), 32);
    assert_eq!(harness.apply(answer("q8")), Reply::InputSeq(9));
    assert_eq!(harness.try_apply(answer("q7")).unwrap_err(), Rejected::NoSuchQuestion("q7".to_owned()));
}

#[test]
fn input_request_is_resolved_by_attempt() {
    let mut harness = asked(&["q1"]);
    harness.report(2, vec![item(EventEffect::InputResolved("other".to_owned()))]).unwrap();
    assert_eq!(harness.state(), State::InputRequired);
    harness.report(3, vec![item(EventEffect::InputResolved("q1".to_owned()))]).unwrap();
    assert_eq!(harness.state(), State::Running);
}

#[test]
fn task_runs_after_last_request_resolved() {
    let mut harness = asked(&["q1", "q2"]);
    harness.apply(answer("q2"));
    assert_eq!(harness.state(), State::InputRequired);
    harness.apply(answer("q1"));
    assert_eq!(harness.state(), State::Running);
}

#[test]
fn repeated_request_has_one_answer() {
    let mut harness = asked(&["q1", "q1"]);
    harness.apply(answer("q1"));
    assert_eq!(harness.state(), State::Running);
}

#[test]
fn unsolicited_message_needs_running_attempt() {
    let mut harness = Harness::new(plain());
    assert_eq!(harness.try_apply(answer("")).unwrap_err(), Rejected::State(State::Queued));
    harness.assign();
    assert_eq!(harness.try_apply(answer("")).unwrap_err(), Rejected::State(State::Assigned));
    harness.accept();
    assert_eq!(harness.apply(answer("")), Reply::InputSeq(1));
    harness.report(1, vec![request("q1")]).unwrap();
    assert_eq!(harness.apply(answer("")), Reply::InputSeq(2));
    assert_eq!(harness.state(), State::InputRequired);
}

#[test]
fn lost_worker_closes_its_requests() {
    let mut harness = asked(&["q1"]);
    harness.lose(EPOCH);
    harness.start();
    assert_eq!(harness.state(), State::Running);
    assert_eq!(harness.try_apply(answer("q1")).unwrap_err(), Rejected::NoSuchQuestion("q1".to_owned()));
}

#[test]
fn input_required_task_can_end() {
    let mut harness = asked(&["q1"]);
    harness.finish(succeeded());
    assert_eq!(harness.state(), State::Succeeded);
}

#[test]
fn too_many_requests_are_rejected_atomically() {
    let names: Vec<_> = (0..33).map(|number| format!("q{number}")).collect();
    let items = |count: usize| names.iter().take(count).map(|name| request(name)).collect::<Vec<_>>();
    let mut harness = Harness::new(plain());
    harness.assign();
    let before = harness.task.clone();
    assert_eq!(harness.report(1, items(33)).unwrap_err(), Rejected::TooMany("open input requests"));
    assert_eq!(harness.task, before);
    harness.report(1, items(32)).unwrap();
    // A repeated batch is skipped, and one that resolves as many as it requests is within the limit.
    assert_eq!(harness.report(1, items(32)).unwrap(), Reply::Reported(32));
    let turn = vec![item(EventEffect::InputResolved("q0".to_owned())), request("q32")];
    assert_eq!(harness.report(33, turn).unwrap(), Reply::Reported(34));
}

#[test]
fn inputs_are_numbered_and_bounded() {
    let mut harness = asked(&[]);
    assert_eq!(harness.apply(answer("")), Reply::InputSeq(1));
    harness.lose(EPOCH);
    harness.start();
    for _ in 1..10_000 {
        harness.apply(answer(""));
    }
    assert_eq!(harness.try_apply(answer("")).unwrap_err(), Rejected::TooMany("inputs"));
    let attempt = harness.live();
    harness.apply(Command::Accept(attempt));
}

fn message(text: String) -> Command {
    Command::GiveInput { request: String::new(), payload: Bytes::from(text), grant: None }
}

#[test]
fn messages_are_kept_for_later_attempts() {
    let mut harness = Harness::new(plain());
    harness.start().apply(message("one".to_owned()));
    harness.finish(failed(Class::Crash));
    harness.wait(secs(600)).apply(Command::TICK);
    harness.start().apply(message("two".to_owned()));
    assert_eq!(harness.task.messages, ["one", "two"]);
    for number in 0..40 {
        harness.apply(message(number.to_string()));
    }
    assert_eq!((harness.task.messages.len(), &harness.task.messages[0][..]), (32, &b"8"[..]));
    harness.apply(message("x".repeat(64 << 10)));
    assert_eq!(harness.task.messages.len(), 32);
    harness.apply(message("y".repeat(20 << 10)));
    assert_eq!(harness.task.messages.len(), 1);
    harness.finish(succeeded());
    assert!(harness.task.messages.is_empty());
}

fn release(harness: &Harness, requests: &[&str]) -> Command {
    let requests = requests.iter().map(ToString::to_string).collect();
    Command::Release { attempt: harness.live(), requests }
}

/// A released task waits without a worker and without a clock, keeps its rank, and is ready with the last answer.
#[test]
fn released_task_is_ready_with_its_answers() {
    let mut harness = asked(&["q1", "q2"]);
    let (ready_at, left) = (harness.task.ready_at, harness.task.time_left());
    harness.now = harness.now + secs(3600);
    let live = harness.live();
    let refused = |harness: &mut Harness, requests: &[&str]| {
        matches!(harness.try_apply(release(harness, requests)), Err(Rejected::State(_)))
    };
    assert!(refused(&mut harness, &["q1", "q2"]), "nothing is stored");
    harness.keep_checkpoint();
    assert!(refused(&mut harness, &["q1"]), "another is open");
    harness.apply(release(&harness, &["q2", "q1"]));
    assert_eq!((harness.state(), harness.task.assignment.is_none()), (State::Pending, true));
    assert_eq!((harness.task.due(), harness.task.time_left()), (None, left));
    assert_eq!((harness.task.failures, harness.task.hand_backs, harness.task.worker_losses), (0, 0, 0));
    let unknown = harness.try_apply(answer("q9")).unwrap_err();
    assert_eq!(unknown, Rejected::NoSuchQuestion("q9".to_owned()));
    assert_eq!(harness.apply(answer("q1")), Reply::InputSeq(1));
    assert_eq!(harness.state(), State::Pending);
    assert_eq!(harness.apply(answer("q2")), Reply::InputSeq(2));
    assert_eq!(harness.apply(answer("q2")), Reply::InputSeq(2), "it is repeated");
    assert_eq!((harness.state(), harness.task.ready_at), (State::Queued, ready_at));
    // The worker that had it is too late, whatever it sends.
    assert_eq!(harness.apply(finish(live, succeeded())), Reply::Stale);
    harness.apply(assign("w2", EPOCH));
    harness.accept();
    assert_eq!(harness.task.questions.len(), 2, "until its successor has stored something");
    harness.keep_checkpoint();
    assert!(harness.task.questions.is_empty());
}

#[test]
fn released_task_can_be_cancelled_and_answers_win() {
    let mut harness = asked(&["q1"]);
    harness.keep_checkpoint();
    let late = release(&harness, &["q1"]);
    harness.apply(answer("q1"));
    assert!(matches!(harness.try_apply(late), Err(Rejected::State(State::Running))), "the attempt continues");
    let mut harness = asked(&["q1"]);
    harness.keep_checkpoint();
    harness.apply(release(&harness, &["q1"]));
    let message = harness.try_apply(answer("")).unwrap_err();
    assert_eq!(message, Rejected::State(State::Pending), "there is no attempt that it could reach");
    harness.apply(update(rota_core::task::Desired::Cancelled));
    assert_eq!(harness.state(), State::Cancelled);
    assert!(harness.task.questions.is_empty());
}
