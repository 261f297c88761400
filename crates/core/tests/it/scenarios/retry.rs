//! Retries of failed attempts: which, when, and how often.

use rota_core::AgentName;
use rota_core::failure::{Class, Failure, Recovery};
use rota_core::retry::{Escalation, MAX_WAITS};
use rota_core::target::Target;
use rota_core::task::{ATTENTION, CONFIRM_SLACK, Command, Completion, Desired, Limits, Own, State, Task};

use crate::harness::*;

#[test]
fn each_class_has_its_outcome() {
    // A worker that shuts down hands its attempts back.
    for class in Class::ALL.into_iter().filter(|class| *class != Class::WorkerLost) {
        let mut harness = Harness::new(plain());
        harness.start().finish(failed(class));
        let counts = (harness.state(), harness.task.failures, harness.task.waits);
        match class.recovery() {
            Recovery::Retry | Recovery::Elsewhere => assert_eq!(counts, (State::Pending, 1, 0), "{class:?}"),
            Recovery::Wait | Recovery::Credentials => assert_eq!(counts, (State::Pending, 0, 1), "{class:?}"),
            Recovery::Stop => assert_eq!(counts, (State::Failed, 1, 0), "{class:?}"),
        }
        let reason = harness.task.failure.as_ref().map(|failure| failure.class);
        assert_eq!(reason, harness.state().is_final().then_some(class));
    }
}

#[test]
fn attempts_are_bounded_with_backoff() {
    let mut harness = Harness::new(plain());
    for wait in [1, 2] {
        harness.start().finish(failed(Class::Crash));
        assert_eq!(harness.state(), State::Pending);
        assert_eq!(harness.task.retry_at, Some(harness.now + secs(wait)));
        harness.wait(secs(wait));
        // It keeps its place in the queue.
        assert_eq!(
            (harness.state(), harness.task.retry_at, harness.task.ready_at),
            (State::Queued, None, Some(START))
        );
    }
    harness.start().finish(failed(Class::Crash));
    assert_eq!((harness.state(), harness.task.attempts, harness.task.failures), (State::Failed, 3, 3));
    assert_eq!(harness.task.failure.unwrap().message, "it failed");
}

#[test]
fn single_attempt_is_not_retried() {
    let mut new = plain();
    new.retry.max_attempts = 1;
    let mut harness = Harness::new(new);
    harness.start().finish(failed(Class::Agent));
    assert_eq!(harness.state(), State::Failed);
}

#[test]
fn rate_limits_use_no_attempt() {
    let limits = Limits { timeout: Some(secs(7 * 24 * 3600)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    for count in 1..=MAX_WAITS {
        harness.start().finish(failed(Class::Overload));
        assert_eq!((harness.state(), harness.task.waits, harness.task.failures), (State::Pending, count, 0));
        harness.wait(secs(300));
    }
    harness.start().finish(failed(Class::Overload));
    assert_eq!((harness.state(), harness.task.waits), (State::Failed, MAX_WAITS));
}

#[test]
fn tasks_wait_for_credentials_of_their_agent() {
    let limits = Limits { timeout: Some(secs(7 * 24 * 3600)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    for _ in 0..3 * MAX_WAITS {
        harness.start().finish(failed(Class::Auth));
        assert_eq!((harness.state(), harness.task.failures), (State::Pending, 0));
        harness.wait(secs(300));
        assert_eq!((harness.state(), harness.task.ready_at), (State::Queued, Some(START)), "its place");
    }
    // The model may be overloaded as often as before.
    harness.start().finish(failed(Class::Overload));
    assert_eq!(harness.state(), State::Pending);
    harness.wait(secs(300));
    harness.start().finish(succeeded());
    assert_eq!(harness.state(), State::Succeeded);
}

#[test]
fn credentials_of_the_task_are_final() {
    let own = Own { credentials: true, ..Own::default() };
    let mut harness = Harness::new(Task { own, ..plain() });
    harness.start().finish(failed(Class::Auth));
    assert_eq!(harness.state(), State::Failed);
}

#[test]
fn choice_of_model_or_secrets_is_not_waited_for_without_limit() {
    let own = Own { choice: true, ..Own::default() };
    let mut harness = Harness::new(Task { own, ..plain() });
    for _ in 0..MAX_WAITS {
        harness.start().finish(failed(Class::Auth));
        assert_eq!(harness.state(), State::Pending, "the agent's credentials may be at fault");
        harness.wait(secs(300));
    }
    harness.start().finish(failed(Class::Auth));
    assert_eq!(harness.state(), State::Failed);
}

#[test]
fn retry_after_is_respected() {
    let mut harness = Harness::new(plain());
    let mut failure = Failure::new(Class::RateLimit, "too many");
    failure.retry_after = Some(secs(77));
    harness.start().finish(Completion::Failed(failure));
    // The harness uses full jitter: a tenth.
    assert_eq!(harness.task.retry_at, Some(START + secs(77) + secs(77) / 10));
}

#[test]
fn zero_backoff_requeues_immediately() {
    let mut new = plain();
    new.retry.initial_backoff = secs(0);
    let mut harness = Harness::new(new);
    harness.start().finish(failed(Class::Agent));
    assert_eq!((harness.state(), harness.task.retry_at), (State::Queued, None));
}

#[test]
fn total_timeout_prevents_late_retry() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.start().wait(secs(100)).finish(failed(Class::Agent));
    assert_eq!((harness.state(), harness.reasons().pop()), (State::Failed, Some("timeout")));
    // The failure of the attempt is kept.
    assert_eq!(harness.task.failure.unwrap().class, Class::Agent);
}

#[test]
fn total_timeout_counts_time_on_workers() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.start().wait(secs(30)).finish(failed(Class::RateLimit));
    // Hours in the queue cost nothing.
    harness.wait(secs(7200)).wait(secs(7200));
    assert_eq!((harness.state(), harness.task.due()), (State::Queued, None));
    harness.start().wait(secs(30)).lose(EPOCH);
    harness.wait(secs(7200)).assign();
    assert_eq!(harness.task.time_left(), secs(40));
    harness.accept();
    let (now, slack) = (harness.now, harness.task.cancel_grace() + CONFIRM_SLACK);
    assert_eq!(harness.task.deadline(), Some(now + secs(40)));
    assert_eq!(harness.task.due(), Some(now + secs(40) + slack));
    harness.wait(secs(40) + slack);
    assert_eq!((harness.state(), harness.task.failure.unwrap().class), (State::Failed, Class::Timeout));
}

#[test]
fn total_timeout_stops_while_person_is_asked() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.start().wait(secs(60)).report(1, vec![request("q")]).unwrap();
    assert_eq!((harness.state(), harness.task.due()), (State::InputRequired, None));
    harness.wait(secs(24 * 3600));
    assert_eq!(harness.state(), State::InputRequired);
    harness.apply(answer("q"));
    assert_eq!(harness.task.deadline(), Some(harness.now + secs(40)));
    harness.wait(secs(30)).finish(failed(Class::Agent));
    assert_eq!((harness.state(), harness.task.time_left()), (State::Pending, secs(10)));
}

#[test]
fn start_failure_is_retried_once() {
    let mut harness = Harness::new(plain());
    harness.start().finish(failed(Class::Start));
    assert_eq!(
        (harness.state(), harness.task.avoid.as_ref()),
        (State::Pending, Some(&worker("w1", 0).worker))
    );
    harness.wait(secs(1)).start().finish(failed(Class::Start));
    assert_eq!((harness.state(), harness.task.failures), (State::Failed, 2));
}

#[test]
fn failure_of_the_worker_is_avoided() {
    let avoids = |harness: &Harness| harness.task.avoid.is_some();
    for class in Class::ALL.into_iter().filter(|class| class.recovery() != Recovery::Stop) {
        let mut harness = Harness::new(plain());
        harness.start().finish(failed(class));
        assert_eq!(avoids(&harness), class.may_be_of_worker(), "{class:?}");
        harness.wait(secs(2)).start();
        assert!(!avoids(&harness), "{class:?}");
    }
    let mut harness = Harness::new(plain());
    let full = Failure { of_storage: true, ..Failure::new(Class::Source, "full") };
    harness.start().finish(Completion::Failed(full));
    assert!(!avoids(&harness), "others store their artifacts in the same place");
    let mut harness = Harness::new(plain());
    harness.assign().reject();
    assert!(avoids(&harness));
    harness.assign().wait(secs(10));
    assert!(avoids(&harness), "it was not accepted in time");
}

#[test]
fn clock_jump_moves_deadlines() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.start().wait(secs(60));
    // The machine sleeps for two hours.
    harness.now = harness.now + secs(7200);
    harness.apply(Command::ClockJumped { by: secs(7200), at: harness.now });
    assert_eq!(harness.task.deadline(), Some(harness.now + secs(40)));
    harness.wait(secs(20)).finish(failed(Class::Agent));
    assert_eq!((harness.state(), harness.task.time_left()), (State::Pending, secs(20)));
    // An assignment that no worker has accepted yet, and a cancellation that none has confirmed.
    harness.wait(secs(60)).assign().update(Desired::Cancelled);
    let due = harness.task.due().unwrap();
    harness.now = harness.now + secs(7200);
    harness.apply(Command::ClockJumped { by: secs(7200), at: harness.now });
    assert_eq!(harness.task.due(), Some(due + secs(7200)));
}

#[test]
fn attempt_moves_with_a_jump_once() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.start().wait(secs(60));
    harness.now = harness.now + secs(7200);
    let jump = Command::ClockJumped { by: secs(7200), at: harness.now };
    harness.apply(jump.clone());
    let (deadline, at) = (harness.task.deadline(), harness.now);
    harness.wait(secs(10)).apply(jump);
    assert_eq!(harness.task.deadline(), deadline);
    // A second jump is another one.
    harness.now = harness.now + secs(7200);
    harness.apply(Command::ClockJumped { by: secs(7200), at: harness.now });
    assert_eq!(harness.task.deadline(), deadline.map(|deadline| deadline + secs(7200)));
    // The next attempt has begun behind both.
    harness.finish(failed(Class::Agent));
    harness.wait(secs(10)).start();
    let due = harness.task.due();
    harness.apply(Command::ClockJumped { by: secs(7200), at });
    assert_eq!(harness.task.due(), due);
}

#[test]
fn lost_attempt_without_time_left_times_out() {
    let limits = Limits { timeout: Some(secs(100)), ..plain().limits };
    let mut harness = Harness::new(Task { limits, ..plain() });
    harness.start().wait(secs(120)).lose(EPOCH);
    assert_eq!((harness.state(), harness.task.failure.unwrap().class), (State::Failed, Class::Timeout));
}

#[test]
fn silent_worker_is_timed_out() {
    let mut harness = Harness::new(plain());
    harness.start().wait(secs(3600));
    assert_eq!(harness.state(), State::Running);
    harness.wait(harness.task.cancel_grace() + CONFIRM_SLACK);
    assert_eq!((harness.state(), harness.task.failure.unwrap().class), (State::Failed, Class::Timeout));
}

#[test]
fn only_failures_of_the_work_count_for_another_model() {
    let mut new = plain();
    new.retry.max_attempts = 10;
    let mut harness = Harness::new(new);
    for (class, counted) in [
        (Class::Agent, 1),
        (Class::Crash, 1),
        (Class::Environment, 1),
        (Class::Overload, 1),
        (Class::Checks, 2),
        (Class::Hang, 3),
    ] {
        harness.start().finish(failed(class));
        assert_eq!(harness.task.own_failures, counted, "{class:?}");
        harness.wait(secs(3600));
    }
}

#[test]
fn failures_of_the_work_move_the_task_to_another_agent() {
    let mut new = plain();
    new.retry.max_attempts = 10;
    let senior = AgentName::new("senior").unwrap();
    new.retry.agents = vec![Escalation { failures: 2, agent: senior.clone() }];
    let first = new.target.clone();
    let mut harness = Harness::new(new);
    for (class, moved) in
        [(Class::Agent, false), (Class::Crash, false), (Class::Hang, true), (Class::Crash, true)]
    {
        harness.start().finish(failed(class));
        let target = if moved { Target::Agent(senior.clone()) } else { first.clone() };
        assert_eq!(
            (&harness.task.target, harness.task.escalated_to().is_some()),
            (&target, moved),
            "{class:?}"
        );
        harness.wait(secs(3600));
    }
    // What the other agent has left is not continued.
    assert_eq!(harness.task.concluded, 3);
}

#[test]
fn third_failure_asks_a_person_to_look() {
    let mut new = plain();
    new.retry.max_attempts = 6;
    let mut harness = Harness::new(new);
    for (class, asked) in [
        (Class::Agent, 0),
        (Class::Overload, 0),
        (Class::RateLimit, 0),
        (Class::Crash, 0),
        (Class::Agent, 1),
        (Class::Overload, 1),
        (Class::Agent, 1),
    ] {
        harness.start().finish(failed(class));
        assert_eq!(harness.task.needs_attention(), asked > 0, "{class:?}");
        // Too early, it has no effect.
        if asked == 0 {
            harness.apply(Command::Acknowledge { reason: String::new() });
        }
        let notices = harness.notices();
        assert_eq!(notices.iter().filter(|code| **code == ATTENTION).count(), asked, "{class:?} {notices:?}");
        harness.wait(secs(3600));
    }
    assert_eq!(harness.task.failed_attempts(), 7);
    // Until a person has acknowledged that, or has decided about the task.
    let acknowledge = |reason: &str| Command::Acknowledge { reason: reason.to_owned() };
    let desire = |desired| Command::Update {
        priority: None,
        labels: None,
        desired: Some(desired),
        reason: String::new(),
    };
    for (command, needed) in [
        (desire(Desired::Suspended), false),
        (desire(Desired::Run), true),
        (acknowledge("the host is down"), false),
    ] {
        harness.apply(command);
        assert_eq!(harness.task.needs_attention(), needed);
    }
    let noted = harness.task.log_seq;
    harness.apply(acknowledge("again"));
    assert_eq!(harness.task.log_seq, noted, "it is noted once");
    // The end of a task is reported as such.
    let mut harness = Harness::new(plain());
    for _ in 0..3 {
        harness.start().finish(failed(Class::Agent));
        harness.wait(secs(3600));
    }
    assert_eq!((harness.state(), harness.notices().contains(&ATTENTION)), (State::Failed, false));
}
