//! Names, tasks and changes for the tests of the scheduler. Everything is numbered from 0.

use std::collections::BTreeSet;
use std::sync::Arc;

use rota_core::target::{Route, Target};
use rota_core::task::{self, Command, Limits, State, Task, WorkerRef};
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_store::{Dispatch, TaskChange};

use super::model;
use crate::keys::WorkerKey;

pub(super) fn namespace() -> Namespace {
    Namespace::new("n").unwrap()
}

pub(super) fn agent_name(agent: usize) -> AgentName {
    AgentName::new(&format!("agent-{agent}")).unwrap()
}

pub(super) fn key(worker: usize) -> WorkerKey {
    (namespace(), WorkerName::new(&format!("worker-{worker}")).unwrap())
}

pub(super) fn number(key: &WorkerKey) -> usize {
    key.1.as_str().trim_start_matches("worker-").parse().unwrap()
}

pub(super) fn route(number: usize) -> Route {
    let target = match number {
        0 | 1 => Target::Agent(agent_name(number)),
        2 => Target::Worker(key(0).1),
        3 => Target::Capabilities(BTreeSet::new()),
        _ => Target::Capabilities(words(true)),
    };
    Route { namespace: namespace(), target }
}

/// Returns the id that a route has at the start.
pub(super) fn first_id(route: usize) -> RouteId {
    RouteId(u32::try_from(route).unwrap())
}

/// Returns capabilities with or without the one that the last route requires.
pub(super) fn words(capable: bool) -> BTreeSet<String> {
    capable.then(|| "review".to_owned()).into_iter().collect()
}

pub(super) fn now() -> Timestamp {
    Timestamp(1_000_000)
}

pub(super) fn change(task: Task, route: RouteId, before: Option<State>, assigned: bool) -> TaskChange {
    let dispatch = Dispatch { payload: bytes::Bytes::new(), secrets: None, previous: Vec::new() };
    TaskChange {
        task: Arc::new(task),
        route,
        before,
        events: Arc::new([]),
        revision: 0,
        dispatch: assigned.then(|| Arc::new(dispatch)),
        identified: false,
    }
}

pub(super) fn assign(task: &mut Task, to: WorkerRef) {
    let agent = agent_name(model::agent(number(&(namespace(), to.worker.clone()))));
    let command = Command::Assign { to, agent, span_id: [1; 8], defaults: Limits::default(), reserved: 0 };
    task.apply(command, now()).unwrap();
}

/// Returns a queued task.
pub(super) fn task(number: u128, route_number: usize) -> Task {
    let id = TaskId(uuid::Uuid::from_u128(number));
    let new = Task { agent_known: true, ..Task::new(id, namespace(), route(route_number).target) };
    task::create(new, now()).0
}
