//! Why a task is not running now.

use rota_core::failure::{Class, Failure};
use rota_core::task::explain::{Cause, Fleet, Pool, Seen, causes, summary};
use rota_core::task::{Desired, New, OnFailure, State};

use crate::life::*;

fn all(life: &Life, fleet: Fleet) -> Vec<Cause> {
    causes(&life.task, &Seen { fleet, ..Seen::default() }, life.now)
}

fn codes(life: &Life, fleet: Fleet) -> Vec<&'static str> {
    all(life, fleet).iter().map(|cause| cause.code).collect()
}

fn sentence(life: &Life, fleet: Fleet) -> String {
    summary(&life.task, &all(life, fleet), life.now)
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

#[test]
fn a_dependency_and_a_failure_are_told_with_what_is_known_of_them() {
    let life = Life::new(New { dependencies: vec![after(2, OnFailure::Fail)], ..plain() });
    let dependencies = [(id(2), State::InputRequired)].into();
    let told = causes(&life.task, &Seen { dependencies, ..Seen::default() }, life.now);
    assert!(told[0].message.ends_with("has not ended: it is INPUT_REQUIRED"), "{told:?}");

    let mut life = Life::new(plain());
    life.start().finish(failed(Class::Agent));
    let mut failure = Failure::new(Class::Agent, "no such file");
    failure.hint = "make the file".to_owned();
    let seen = Seen { failure: Some(failure), ..Seen::default() };
    let told = causes(&life.task, &seen, life.now);
    assert_eq!(told[0].message, "it is tried again in 1 s: no such file");
    assert_eq!(told[0].hint, "make the file");
}

#[test]
fn a_full_queue_is_told_with_what_its_pool_does() {
    let life = Life::new(plain());
    let pool = |workers, starting, trouble: &str| Pool {
        agent: "coder".parse().unwrap(),
        managed: true,
        workers,
        ceiling: 2,
        starting,
        trouble: trouble.to_owned(),
    };
    let told = |fleet: Fleet, pool: Pool| {
        let busy_with = vec!["a".to_owned(), "b".to_owned()];
        let seen = Seen { fleet, pool: Some(pool), busy_with, busy_with_more: 3, ..Seen::default() };
        causes(&life.task, &seen, life.now)
    };
    let codes = |causes: &[Cause]| causes.iter().map(|cause| cause.code).collect::<Vec<_>>();
    let busy = Fleet { workers: 1, slots: 5, ahead: 3, ..Fleet::default() };

    let starting = told(busy, pool(1, 1, ""));
    assert_eq!(codes(&starting), ["no_free_slot", "pool_starting", "busy_with", "behind"]);
    assert_eq!(
        starting[1].message,
        "1 more workers of the agent coder are to start; 1 of at most 2 are there"
    );
    assert_eq!(starting[2].message, "its workers are busy with a, b and 3 more");
    assert_eq!(starting[3].message, "it is number 4 in the queue: 3 tasks of the same route go first");
    let full = told(busy, pool(2, 0, ""));
    assert_eq!(codes(&full), ["no_free_slot", "at_ceiling", "busy_with", "behind"]);
    let broken = told(Fleet::default(), pool(0, 1, "no such image"));
    assert_eq!(codes(&broken)[..3], ["workers_cannot_start", "no_worker", "pool_starting"]);
    assert!(broken[0].message.ends_with("cannot start: no such image"));
    // Nobody starts workers of an agent that others serve.
    let external = told(busy, Pool { managed: false, ..pool(1, 1, "") });
    assert_eq!(codes(&external), ["no_free_slot", "busy_with", "behind"]);
    // A free slot is all that it needs.
    assert_eq!(codes(&told(Fleet { free: 1, ..busy }, pool(1, 0, "broken"))), ["dispatching", "behind"]);
}
