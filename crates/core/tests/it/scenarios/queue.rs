//! Ready or not: start times, agents, queue timeouts, and the order among ready tasks.

use rota_core::failure::Class;
use rota_core::rank::{HEAD_START, Priority};
use rota_core::task::explain::Wait;
use rota_core::task::{Command, Desired, Limits, New, Rejected, State};

use crate::life::*;

fn impatient() -> New {
    let limits = Limits { queue_timeout: Some(secs(60)), ..plain().limits };
    New { limits, ..plain() }
}

#[test]
fn not_before_its_time() {
    let at = START + secs(60);
    let mut life = Life::new(New { not_before: Some(at), ..plain() });
    assert_eq!((life.task.waits(), life.task.due()), (vec![Wait::StartTime(at)], Some(at)));
    life.wait(secs(59));
    assert_eq!(life.state(), State::Pending);
    life.wait(secs(1));
    assert_eq!((life.state(), life.task.ready_at, life.task.not_before), (State::Queued, Some(at), None));
}

#[test]
fn a_start_time_in_the_past_is_now() {
    let life = Life::new(New { not_before: Some(START), ..plain() });
    assert_eq!((life.state(), life.task.due()), (State::Queued, None));
}

#[test]
fn an_agent_may_come_later_and_go() {
    let mut life = Life::new(New { agent_known: false, ..plain() });
    assert_eq!(life.task.waits(), [Wait::AgentMissing("coder".to_owned())]);
    life.does(appeared(Limits::default()));
    assert_eq!(life.state(), State::Queued);
    life.does(Command::AgentGone);
    assert_eq!((life.state(), life.task.ready_at), (State::Pending, None));
    life.does(appeared(Limits::default()));
    life.start().does(Command::AgentGone);
    assert_eq!(life.state(), State::Running);
    life.lose(EPOCH);
    assert_eq!(life.state(), State::Pending);
}

#[test]
fn who_names_no_agent_waits_for_none() {
    let mut life = Life::new(New { target: capabilities(), agent_known: false, ..plain() });
    assert_eq!(life.state(), State::Queued);
    life.does(Command::AgentGone);
    assert_eq!(life.state(), State::Queued);
}

#[test]
fn only_what_is_queued_can_be_assigned() {
    let mut life = Life::new(plain());
    let assign = assign("w2", 1);
    life.assign();
    assert_eq!(life.tries(assign.clone()).unwrap_err(), Rejected::State(State::Assigned));
    life.accept();
    assert_eq!(life.tries(assign).unwrap_err(), Rejected::State(State::Running));
}

#[test]
fn too_long_in_the_queue() {
    let mut life = Life::new(impatient());
    life.wait(secs(59));
    assert_eq!(life.state(), State::Queued);
    life.wait(secs(1));
    assert_eq!((life.state(), life.task.failure.unwrap().class), (State::Failed, Class::QueueTimeout));
}

#[test]
fn the_time_of_a_run_is_no_time_in_the_queue() {
    let mut life = Life::new(impatient());
    life.start().wait(secs(600));
    life.lose(EPOCH);
    assert_eq!((life.state(), life.task.ready_at), (State::Queued, Some(START)));
    life.wait(secs(1));
    assert_eq!(life.state(), State::Queued);
}

#[test]
fn the_time_of_a_pause_is_no_time_in_the_queue() {
    let mut life = Life::new(impatient());
    life.assign().want(Desired::Suspended).reject();
    assert_eq!(life.state(), State::Pending);
    life.wait(secs(600)).want(Desired::Run).wait(secs(1));
    assert_eq!(life.state(), State::Queued);
}

#[test]
fn refusals_do_not_outlive_the_queue_timeout() {
    let mut life = Life::new(impatient());
    for _ in 0..20 {
        if life.state() == State::Queued {
            life.assign().reject();
        }
        life.wait(secs(10));
    }
    assert_eq!((life.state(), life.task.failure.unwrap().class), (State::Failed, Class::QueueTimeout));
}

#[test]
fn a_queue_timeout_within_the_wait_after_a_refusal_is_seen_in_time() {
    let mut life = Life::new(impatient());
    life.assign().reject();
    for wait in [1, 2, 4, 8, 16] {
        life.assign().reject().wait(secs(wait));
    }
    life.assign().reject();
    // 31 s are over, and the next try would come 30 s later.
    assert_eq!(life.task.retry_at, Some(START + secs(61)));
    assert_eq!((life.state(), life.task.due()), (State::Pending, Some(START + secs(60))));
    life.wait(secs(29));
    assert_eq!((life.state(), life.task.failure.unwrap().class), (State::Failed, Class::QueueTimeout));
}

#[test]
fn a_changed_priority_moves_a_waiting_task() {
    let mut life = Life::new(plain());
    let before = life.task.rank();
    let priority = Some(Priority::URGENT);
    life.does(Command::Update { priority, labels: None, desired: None, reason: String::new() });
    assert_eq!(life.task.rank(), before - 5 * i64::try_from(HEAD_START.as_micros()).unwrap());
    assert_eq!(life.task.ready_at, Some(START));
}
