//! Readiness: start times, agents, queue timeouts, and the order of ready tasks.

use rota_core::failure::Class;
use rota_core::rank::{HEAD_START, Priority};
use rota_core::task::explain::Wait;
use rota_core::task::{Command, Desired, Limits, Rejected, State, Task};

use crate::harness::*;

fn impatient() -> Task {
    let limits = Limits { queue_timeout: Some(secs(60)), ..plain().limits };
    Task { limits, ..plain() }
}

#[test]
fn start_time_delays_the_task() {
    let at = START + secs(60);
    let mut harness = Harness::new(Task { not_before: Some(at), ..plain() });
    assert_eq!((harness.task.waits(), harness.task.due()), (vec![Wait::StartTime(at)], Some(at)));
    harness.wait(secs(59));
    assert_eq!(harness.state(), State::Pending);
    harness.wait(secs(1));
    assert_eq!(
        (harness.state(), harness.task.ready_at, harness.task.not_before),
        (State::Queued, Some(at), None)
    );
}

#[test]
fn past_start_time_is_ignored() {
    let harness = Harness::new(Task { not_before: Some(START), ..plain() });
    assert_eq!((harness.state(), harness.task.due()), (State::Queued, None));
}

#[test]
fn missing_agent_holds_the_task() {
    let mut harness = Harness::new(Task { agent_known: false, ..plain() });
    assert_eq!(harness.task.waits(), [Wait::AgentMissing("coder".to_owned())]);
    harness.apply(appeared(Limits::default()));
    assert_eq!(harness.state(), State::Queued);
    harness.apply(Command::AgentDeleted);
    assert_eq!((harness.state(), harness.task.ready_at), (State::Pending, None));
    harness.apply(appeared(Limits::default()));
    harness.start().apply(Command::AgentDeleted);
    assert_eq!(harness.state(), State::Running);
    harness.lose(EPOCH);
    assert_eq!(harness.state(), State::Pending);
}

#[test]
fn task_without_agent_waits_for_none() {
    let mut harness = Harness::new(Task { target: capabilities(), agent_known: false, ..plain() });
    assert_eq!(harness.state(), State::Queued);
    harness.apply(Command::AgentDeleted);
    assert_eq!(harness.state(), State::Queued);
}

#[test]
fn only_queued_tasks_are_assigned() {
    let mut harness = Harness::new(plain());
    let assign = assign("w2", 1);
    harness.assign();
    assert_eq!(harness.try_apply(assign.clone()).unwrap_err(), Rejected::State(State::Assigned));
    harness.accept();
    assert_eq!(harness.try_apply(assign).unwrap_err(), Rejected::State(State::Running));
}

#[test]
fn queue_timeout_fails_the_task() {
    let mut harness = Harness::new(impatient());
    harness.wait(secs(59));
    assert_eq!(harness.state(), State::Queued);
    harness.wait(secs(1));
    assert_eq!((harness.state(), harness.task.failure.unwrap().class), (State::Failed, Class::QueueTimeout));
}

#[test]
fn running_time_does_not_count_as_queued() {
    let mut harness = Harness::new(impatient());
    harness.start().wait(secs(600));
    harness.lose(EPOCH);
    assert_eq!((harness.state(), harness.task.ready_at), (State::Queued, Some(START)));
    harness.wait(secs(1));
    assert_eq!(harness.state(), State::Queued);
}

#[test]
fn suspended_time_does_not_count_as_queued() {
    let mut harness = Harness::new(impatient());
    harness.assign().update(Desired::Suspended).reject();
    assert_eq!(harness.state(), State::Pending);
    harness.wait(secs(600)).update(Desired::Run).wait(secs(1));
    assert_eq!(harness.state(), State::Queued);
}

#[test]
fn rejected_task_keeps_its_queue_timeout() {
    let mut harness = Harness::new(impatient());
    for _ in 0..20 {
        if harness.state() == State::Queued {
            harness.assign().reject();
        }
        harness.wait(secs(10));
    }
    assert_eq!((harness.state(), harness.task.failure.unwrap().class), (State::Failed, Class::QueueTimeout));
}

#[test]
fn queue_timeout_applies_during_rejection_backoff() {
    let mut harness = Harness::new(impatient());
    harness.assign().reject();
    for wait in [1, 2, 4, 8, 16] {
        harness.assign().reject().wait(secs(wait));
    }
    harness.assign().reject();
    // After 31 s; the next attempt would follow 30 s later.
    assert_eq!(harness.task.retry_at, Some(START + secs(61)));
    assert_eq!((harness.state(), harness.task.due()), (State::Pending, Some(START + secs(60))));
    harness.wait(secs(29));
    assert_eq!((harness.state(), harness.task.failure.unwrap().class), (State::Failed, Class::QueueTimeout));
}

#[test]
fn priority_update_changes_the_rank() {
    let mut harness = Harness::new(plain());
    let before = harness.task.rank();
    let priority = Some(Priority::URGENT);
    harness.apply(Command::Update { priority, labels: None, desired: None, reason: String::new() });
    assert_eq!(harness.task.rank(), before - 5 * i64::try_from(HEAD_START.as_micros()).unwrap());
    assert_eq!(harness.task.ready_at, Some(START));
}
