//! Why a task is not running now.

use rota_core::failure::Class;
use rota_core::task::explain::{Fleet, causes, summary};
use rota_core::task::{Desired, New, OnFailure};

use crate::life::*;

fn codes(life: &Life, fleet: Fleet) -> Vec<&'static str> {
    causes(&life.task, fleet, life.now).iter().map(|cause| cause.code).collect()
}

fn sentence(life: &Life, fleet: Fleet) -> String {
    summary(&life.task, &causes(&life.task, fleet, life.now), life.now)
}

#[test]
fn all_reasons_of_a_waiting_task_are_told() {
    let life = Life::new(New {
        desired: Desired::Suspended,
        agent_known: false,
        not_before: Some(START + secs(90)),
        dependencies: vec![after(2, OnFailure::Fail), missing("build", OnFailure::Fail)],
        ..plain()
    });
    let told = codes(&life, Fleet::default());
    assert_eq!(told, ["suspended", "dependency", "dependency_missing", "agent_missing", "start_time"]);
    assert_eq!(sentence(&life, Fleet::default()), "The task is PENDING: it is suspended.");
}

#[test]
fn a_retry_says_when() {
    let mut life = Life::new(plain());
    life.start().finish(failed(Class::Agent));
    assert_eq!(sentence(&life, Fleet::default()), "The task is PENDING: it is tried again in 1 s.");
}

#[test]
fn a_ready_task_is_held_by_the_fleet() {
    let life = Life::new(plain());
    let none = Fleet::default();
    let draining = Fleet { draining: 1, ..none };
    let busy = Fleet { workers: 2, slots: 4, ahead: 3, ..none };
    let free = Fleet { workers: 2, slots: 4, free: 1, ..none };
    assert_eq!(codes(&life, none), ["no_worker"]);
    assert_eq!(codes(&life, draining), ["all_draining"]);
    assert_eq!(codes(&life, busy), ["no_free_slot", "behind"]);
    assert_eq!(codes(&life, free), ["dispatching"]);
    assert!(sentence(&life, none).contains("no worker for the agent coder"));
}

#[test]
fn a_task_on_a_worker_names_it() {
    let mut life = Life::new(plain());
    life.assign();
    assert!(sentence(&life, Fleet::default()).contains("it has been sent to w1"));
    life.accept().wait(secs(300));
    assert_eq!(sentence(&life, Fleet::default()), "The task is RUNNING on w1 since 5 min, attempt 1.");
    life.report(1, vec![asks("q1")]).unwrap();
    assert_eq!(codes(&life, Fleet::default()), ["input_required"]);
    life.finish(failed(Class::Auth));
    assert_eq!(sentence(&life, Fleet::default()), "The task has FAILED: it went wrong.");
    assert!(codes(&life, Fleet::default()).is_empty());
}

#[test]
fn refusals_are_told_with_who_and_why() {
    let mut life = Life::new(plain());
    life.assign().reject();
    let free = Fleet { workers: 1, slots: 1, free: 1, ..Fleet::default() };
    assert_eq!(codes(&life, free), ["refused", "dispatching"]);
    assert_eq!(sentence(&life, free), "The task is QUEUED: the worker w1 did not take it (no room).");
    life.assign().reject();
    life.wait(secs(1)).assign().reject();
    assert_eq!(codes(&life, free), ["refused", "retry_delay"]);
    let told = "3 assignments in a row were not taken, the last by the worker w1 (no room)";
    assert_eq!(sentence(&life, free), format!("The task is PENDING: {told}."));
    life.wait(secs(2)).start().lose(EPOCH);
    assert_eq!(codes(&life, free), ["dispatching"]);
}
