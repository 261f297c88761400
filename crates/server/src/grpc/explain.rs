//! Why a task is not running: the record's reasons, with what the fleet, its pool and its log say.

use std::collections::BTreeMap;

use rota_core::breaker::State as Breaker;
use rota_core::failure::Failure;
use rota_core::scaling::{self, WorkerView};
use rota_core::task::explain::{Pool, Seen, Wait};
use rota_core::task::{Body, State, Task, explain};
use rota_core::{AgentName, TaskId};
use rota_proto::v1;
use tonic::Status;

use super::demand;
use crate::breakers;
use crate::shared::{Shared, now};
use crate::wire::{status, task as wire};

/// Other tasks that are named.
const NAMED: usize = 5;
/// Entries at a log's end among which an attempt's failure is looked for.
const TAIL: u64 = 32;

pub(super) async fn explain(shared: &Shared, task: &Task) -> Result<v1::ExplainTaskResponse, Status> {
    let seen = look_around(shared, task).await?;
    let now = now();
    let mut causes = explain::causes(task, &seen, now);
    if let Some(cause) = paused(shared, task) {
        // What room there is does not matter then.
        causes.retain(|cause| cause.code == "behind");
        causes.insert(0, cause);
    }
    let summary = explain::summary(task, &causes, now);
    let causes = causes.into_iter().map(|cause| v1::Cause {
        code: cause.code.to_owned(),
        message: cause.message,
        hint: cause.hint,
    });
    Ok(v1::ExplainTaskResponse {
        task: Some(wire::to_wire(task, None, None)),
        summary,
        causes: causes.collect(),
        ahead: i64::try_from(seen.fleet.ahead).unwrap_or(i64::MAX),
    })
}

/// What is to be seen around a task, as far as its state makes it matter.
async fn look_around(shared: &Shared, task: &Task) -> Result<Seen, Status> {
    let mut seen = Seen::default();
    match task.state {
        State::Queued => {
            let route = task.route();
            let (id, fleet) = shared.fleet.seen_from(&route);
            seen.fleet = fleet;
            if let Some(id) = id {
                seen.fleet.ahead = shared.store.ahead(id, task.rank()).await.map_err(status::store)?;
            }
            let (some, all) = shared.fleet.busy_with(&route, NAMED);
            seen.busy_with_more = all - some.len();
            for id in some {
                let other = shared.store.task(id).await.map_err(status::store)?;
                seen.busy_with.push(other.and_then(|task| task.alias).unwrap_or_else(|| id.to_string()));
            }
            seen.pool = shared.preferred(&route).and_then(|agent| pool(shared, task, agent));
        }
        State::Pending => {
            seen.dependencies = dependencies(shared, task).await?;
            if task.retry_at.is_some() {
                seen.failure = last_failure(shared, task).await?;
            }
        }
        _ => {}
    }
    Ok(seen)
}

/// The pool of an agent: what there is, what there may be, and what its demand asks for.
fn pool(shared: &Shared, task: &Task, agent: AgentName) -> Option<Pool> {
    let key = (task.namespace.clone(), agent);
    let spec = shared.agent(&key.0, &key.1)?.spec;
    let standing = demand::standing(shared).remove(&key).unwrap_or_default();
    let count = |number: i32| u32::try_from(number).unwrap_or_default();
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (floor, workers) = (count(spec.replicas), small(standing.workers.len()));
    let ceiling = scaling::ceiling(floor, count(spec.max_replicas));
    let plan = scaling::plan(&scaling::Pool {
        floor,
        ceiling,
        spare: count(spec.spare_workers),
        slots: count(spec.slots),
        queued: demand::asked(shared, &key, standing.queued),
        workers: (standing.workers.iter())
            .map(|worker| WorkerView {
                running: small(worker.tasks.len()),
                draining: worker.draining,
                connected: worker.connected,
                ..WorkerView::default()
            })
            .collect(),
        ..scaling::Pool::default()
    });
    Some(Pool {
        managed: spec.management() != v1::Management::External,
        workers,
        ceiling,
        starting: plan.start,
        trouble: shared.pools.message(&key),
        agent: key.1,
    })
}

/// Its agent is given nothing for now, because its attempts failed through no fault of their tasks.
fn paused(shared: &Shared, task: &Task) -> Option<explain::Cause> {
    if task.state != State::Queued {
        return None;
    }
    let route = task.route();
    let agent = task.agent().cloned().or_else(|| shared.preferred(&route))?;
    let breaker = shared.breakers.get(&(route.namespace, agent.clone()))?;
    (breaker.state() != Breaker::Closed).then(|| explain::Cause {
        code: "breaker_open",
        message: breakers::sentence(&agent, &breaker),
        hint: format!(
            "see `rota admin breakers`; `rota admin reset-breaker {agent}` lets all through at once"
        ),
    })
}

/// Where the tasks stand that it waits for.
async fn dependencies(shared: &Shared, task: &Task) -> Result<BTreeMap<TaskId, State>, Status> {
    let mut states = BTreeMap::new();
    let ids = task.waits().into_iter().filter_map(|wait| match wait {
        Wait::Dependency { id, .. } => Some(id),
        _ => None,
    });
    for id in ids.take(NAMED) {
        if let Some(other) = shared.store.task(id).await.map_err(status::store)? {
            states.insert(id, other.state);
        }
    }
    Ok(states)
}

/// Why the last attempt failed; the record only has a number.
async fn last_failure(shared: &Shared, task: &Task) -> Result<Option<Failure>, Status> {
    let after = task.log_seq.saturating_sub(TAIL);
    let tail = shared.store.events(task.id, after, TAIL as usize).await.map_err(status::store)?;
    Ok(tail.into_iter().rev().find_map(|entry| match entry.body {
        Body::State(change) => change.failure,
        _ => None,
    }))
}
