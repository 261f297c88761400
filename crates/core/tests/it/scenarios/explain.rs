//! Explanations of why a task is not running.

use rota_core::failure::{Class, Failure};
use rota_core::target::{ISOLATED, Target};
use rota_core::task::explain::{Cause, Context, Pool, RouteCapacity, causes, summary};
use rota_core::task::{Desired, OnFailure, State, Task};

use crate::harness::*;

fn all(harness: &Harness, capacity: RouteCapacity) -> Vec<Cause> {
    causes(&harness.task, &Context { capacity, ..Context::default() }, harness.now)
}

fn codes(harness: &Harness, capacity: RouteCapacity) -> Vec<&'static str> {
    all(harness, capacity).iter().map(|cause| cause.code).collect()
}

fn sentence(harness: &Harness, capacity: RouteCapacity) -> String {
    summary(&harness.task, &all(harness, capacity), harness.now)
}

#[test]
fn pending_task_lists_all_causes() {
    let harness = Harness::new(Task {
        desired: Desired::Suspended,
        agent_known: false,
        not_before: Some(START + secs(90)),
        dependencies: vec![after(2, OnFailure::Fail), missing("build", OnFailure::Fail)],
        ..plain()
    });
    let found = codes(&harness, RouteCapacity::default());
    assert_eq!(found, ["suspended", "dependency", "dependency_missing", "agent_missing", "start_time"]);
    assert_eq!(sentence(&harness, RouteCapacity::default()), "The task is PENDING: the task is suspended.");
}

#[test]
fn retry_delay_names_the_wait() {
    let mut harness = Harness::new(plain());
    harness.start().finish(failed(Class::Agent));
    assert_eq!(
        sentence(&harness, RouteCapacity::default()),
        "The task is PENDING: the next attempt starts in 1 s."
    );
}

#[test]
fn queued_task_explains_missing_capacity() {
    let harness = Harness::new(plain());
    let none = RouteCapacity::default();
    let draining = RouteCapacity { draining: 1, ..none };
    let busy = RouteCapacity { workers: 2, slots: 4, ahead: 3, ..none };
    let free = RouteCapacity { workers: 2, slots: 4, free: 1, ..none };
    assert_eq!(codes(&harness, none), ["no_worker"]);
    assert_eq!(codes(&harness, draining), ["all_draining"]);
    assert_eq!(codes(&harness, busy), ["no_free_slot", "behind"]);
    assert_eq!(codes(&harness, free), ["dispatching"]);
    assert!(sentence(&harness, none).contains("no worker for agent coder"));
}

#[test]
fn assigned_task_names_its_worker() {
    let mut harness = Harness::new(plain());
    harness.assign();
    assert!(sentence(&harness, RouteCapacity::default()).contains("was sent to w1"));
    harness.accept().wait(secs(300));
    assert_eq!(
        sentence(&harness, RouteCapacity::default()),
        "The task is RUNNING on w1 since 5 min, attempt 1."
    );
    harness.report(1, vec![request("q1")]).unwrap();
    assert_eq!(codes(&harness, RouteCapacity::default()), ["input_required"]);
    harness.finish(failed(Class::Refusal));
    assert_eq!(sentence(&harness, RouteCapacity::default()), "The task has FAILED: it failed.");
    assert!(codes(&harness, RouteCapacity::default()).is_empty());
}

#[test]
fn rejections_name_worker_and_reason() {
    let mut harness = Harness::new(plain());
    harness.assign().reject();
    let free = RouteCapacity { workers: 1, slots: 1, free: 1, ..RouteCapacity::default() };
    assert_eq!(codes(&harness, free), ["refused", "dispatching"]);
    assert_eq!(
        sentence(&harness, free),
        "The task is QUEUED: worker w1 did not accept the assignment (no room)."
    );
    harness.assign().reject();
    harness.wait(secs(1)).assign().reject();
    assert_eq!(codes(&harness, free), ["refused", "retry_delay"]);
    let cause = "3 consecutive assignments were not accepted, the last by worker w1 (no room)";
    assert_eq!(sentence(&harness, free), format!("The task is PENDING: {cause}."));
    harness.wait(secs(2)).start().lose(EPOCH);
    assert_eq!(codes(&harness, free), ["dispatching"]);
}

#[test]
fn dependency_and_failure_details_are_included() {
    let harness = Harness::new(Task { dependencies: vec![after(2, OnFailure::Fail)], ..plain() });
    let dependencies = [(id(2), State::InputRequired)].into();
    let found = causes(&harness.task, &Context { dependencies, ..Context::default() }, harness.now);
    assert!(found[0].message.ends_with("has not ended (INPUT_REQUIRED)"), "{found:?}");

    let mut harness = Harness::new(plain());
    harness.start().finish(failed(Class::Agent));
    let mut failure = Failure::new(Class::Agent, "no such file");
    failure.hint = "make the file".to_owned();
    let context = Context { failure: Some(failure), ..Context::default() };
    let found = causes(&harness.task, &context, harness.now);
    assert_eq!(found[0].message, "the next attempt starts in 1 s: no such file");
    assert_eq!(found[0].hint, "make the file");
}

#[test]
fn full_queue_explains_pool_scaling() {
    let harness = Harness::new(plain());
    let pool = |workers, starting, start_failure: &str| Pool {
        agent: "coder".parse().unwrap(),
        managed: true,
        workers,
        floor: 0,
        ceiling: 2,
        starting,
        not_isolated: None,
        start_failure: start_failure.to_owned(),
    };
    let explain = |capacity: RouteCapacity, pool: Pool| {
        let busy_with = vec!["a".to_owned(), "b".to_owned()];
        let context =
            Context { capacity, pool: Some(pool), busy_with, busy_with_more: 3, ..Context::default() };
        causes(&harness.task, &context, harness.now)
    };
    let codes = |causes: &[Cause]| causes.iter().map(|cause| cause.code).collect::<Vec<_>>();
    let busy = RouteCapacity { workers: 1, slots: 5, ahead: 3, ..RouteCapacity::default() };

    let starting = explain(busy, pool(1, 1, ""));
    assert_eq!(codes(&starting), ["no_free_slot", "pool_starting", "busy_with", "behind"]);
    assert_eq!(starting[1].message, "1 more workers of agent coder are starting; 1 of at most 2 exist");
    assert_eq!(starting[2].message, "the workers are busy with a, b and 3 more");
    assert_eq!(starting[3].message, "position 4 in the queue: 3 tasks of the same route are first");
    let full = explain(busy, pool(2, 0, ""));
    assert_eq!(codes(&full), ["no_free_slot", "at_ceiling", "busy_with", "behind"]);
    // Slots of workers that get no tasks are not busy.
    let sick =
        RouteCapacity { workers: 2, unavailable: 2, suspended: 1, not_ready: 2, ..RouteCapacity::default() };
    assert!(!codes(&explain(sick, pool(2, 0, ""))).contains(&"no_free_slot"));
    let one = explain(RouteCapacity { unavailable: 1, not_ready: 1, slots: 1, ..sick }, pool(2, 0, ""));
    assert!(one.iter().any(|cause| cause.message.starts_with("all 1 slots of the 1 workers")), "{one:?}");
    let broken = explain(RouteCapacity::default(), pool(0, 1, "no such image"));
    assert_eq!(codes(&broken)[..3], ["workers_cannot_start", "no_worker", "pool_starting"]);
    assert!(broken[0].message.ends_with("cannot start: no such image"));
    // Workers of an unmanaged agent are not started by demand.
    let external = explain(busy, Pool { managed: false, ..pool(1, 1, "") });
    assert_eq!(codes(&external), ["no_free_slot", "busy_with", "behind"]);
    // With a free slot, the pool does not matter.
    assert_eq!(
        codes(&explain(RouteCapacity { free: 1, ..busy }, pool(1, 0, "broken"))),
        ["dispatching", "behind"]
    );
}

#[test]
fn ceiling_is_not_blamed_for_isolation() {
    let words = ["coder".to_owned(), ISOLATED.to_owned()];
    let harness = Harness::new(Task { target: Target::Capabilities(words.into()), ..plain() });
    let pool = |floor, reason: Option<&str>| Pool {
        agent: "coder".parse().unwrap(),
        managed: true,
        workers: 3,
        floor,
        ceiling: 3,
        starting: 0,
        not_isolated: reason.map(str::to_owned),
        start_failure: String::new(),
    };
    let explain = |capacity, pool| {
        causes(&harness.task, &Context { capacity, pool: Some(pool), ..Context::default() }, harness.now)
    };
    let found = explain(RouteCapacity::default(), pool(3, Some("it runs as root")));
    assert_eq!(found.iter().map(|cause| cause.code).collect::<Vec<_>>(), ["no_worker", "not_isolated"]);
    assert_eq!(found[1].message, "workers of agent coder do not isolate their attempts: it runs as root");
    assert!(found[1].hint.contains("nodeSelector") && found[1].hint.contains("maxReplicas above replicas"));
    let found = explain(RouteCapacity::default(), pool(0, Some("")));
    assert!(found[1].message.ends_with("attempts") && !found[1].hint.contains("maxReplicas"), "{found:?}");
    // Others that isolate are busy.
    let busy = RouteCapacity { workers: 1, slots: 1, ..RouteCapacity::default() };
    for (capacity, reason) in [(RouteCapacity::default(), None), (busy, Some("it runs as root"))] {
        assert_eq!(explain(capacity, pool(0, reason))[1].code, "at_ceiling");
    }
}
