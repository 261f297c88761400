//! Cause codes: the literals of the core are the constants of the API, which clients match.

use std::collections::BTreeSet;

use rota_core::failure::Class;
use rota_core::target::{ISOLATED, Target};
use rota_core::task::explain::RouteCapacity;
use rota_core::task::{Dependency, DependencyKey, DependencyState, Desired, OnFailure, Refusal};
use rota_core::{Namespace, Timestamp, WorkerName};
use uuid::Uuid;

use super::*;

fn agent() -> AgentName {
    AgentName::new("a").unwrap()
}

fn task(state: State) -> Task {
    let (id, namespace) = (TaskId(Uuid::from_u128(1)), Namespace::new("n").unwrap());
    Task { state, agent_known: true, ..Task::new(id, namespace, Target::Agent(agent())) }
}

/// Returns a task with every condition that keeps it PENDING.
fn pending_task() -> Task {
    let later = Some(Timestamp(1_000_000));
    let dependency = |key: &str, state| {
        let key = DependencyKey::Alias(key.to_owned());
        Dependency { key, on_failure: OnFailure::Fail, state, of_thread: false }
    };
    Task {
        desired: Desired::Suspended,
        dependencies: vec![
            dependency("missing", DependencyState::Missing),
            dependency("waiting", DependencyState::Waiting(TaskId(Uuid::from_u128(2)))),
        ],
        agent_known: false,
        not_before: later,
        retry_at: later,
        refusal: Some(Refusal { worker: WorkerName::new("w").unwrap(), reason: "busy".to_owned() }),
        ..task(State::Pending)
    }
}

fn failed_task() -> Task {
    let mut failure = Failure::new(Class::Agent, "no");
    failure.hint = "fix the agent".to_owned();
    Task { failure: Some(failure), ..task(State::Failed) }
}

/// Returns the pool of the task's agent, of at most two workers.
fn pool(workers: u32, starting: u32) -> Option<Pool> {
    let start_failure = "no image".to_owned();
    let (managed, floor, ceiling, not_isolated) = (true, 0, 2, Some(String::new()));
    Some(Pool { agent: agent(), managed, workers, floor, ceiling, starting, not_isolated, start_failure })
}

/// Returns the context of a queued task whose route has workers with one slot each.
fn queue(workers: u32, draining: u32, free: u32, pool: Option<Pool>) -> Context {
    let capacity =
        RouteCapacity { workers, draining, slots: workers, free, ahead: 1, ..RouteCapacity::default() };
    Context { capacity, pool, busy_with: vec!["other".to_owned()], ..Context::default() }
}

#[test]
fn cause_codes_match_api_constants() {
    let queued = || task(State::Queued);
    let isolated = Target::Capabilities([ISOLATED.to_owned()].into());
    let demanding = Task { target: isolated, ..queued() };
    let cases = [
        (pending_task(), Context::default()),
        (queued(), queue(0, 0, 0, None)),
        (queued(), queue(0, 1, 0, None)),
        (queued(), queue(1, 0, 0, pool(1, 1))),
        (queued(), queue(2, 0, 0, pool(2, 0))),
        (queued(), queue(1, 0, 1, None)),
        (demanding, queue(0, 0, 0, pool(2, 0))),
        (task(State::Assigned), Context::default()),
        (task(State::InputRequired), Context::default()),
        (failed_task(), Context::default()),
    ];
    let all = cases.iter().flat_map(|(task, context)| explain::causes(task, context, Timestamp(0)));
    let codes: BTreeSet<_> = all.map(|cause| cause.code).collect();
    let expected = BTreeSet::from([
        causes::AGENT_MISSING,
        causes::ALL_DRAINING,
        causes::AT_CEILING,
        causes::BEHIND,
        causes::BUSY_WITH,
        causes::DEPENDENCY,
        causes::DEPENDENCY_MISSING,
        causes::DISPATCHING,
        causes::NO_FREE_SLOT,
        causes::NO_WORKER,
        causes::NOT_ISOLATED,
        causes::NOT_TAKEN_YET,
        causes::POOL_STARTING,
        causes::RETRY_DELAY,
        causes::START_TIME,
        causes::SUSPENDED,
        causes::WORKERS_CANNOT_START,
        // No client of this repository matches these.
        "failed",
        "input_required",
        "refused",
    ]);
    assert_eq!(codes, expected);
}
