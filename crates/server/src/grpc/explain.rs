//! Why a task is not running: the record's reasons, with what the fleet says.

use rota_core::breaker::State as Breaker;
use rota_core::task::{State, Task, explain};
use rota_proto::v1;
use tonic::Status;

use crate::breakers;
use crate::shared::{Shared, now};
use crate::wire::{status, task as wire};

pub(super) async fn explain(shared: &Shared, task: &Task) -> Result<v1::ExplainTaskResponse, Status> {
    let (route, mut fleet) = shared.fleet.seen_from(&task.route());
    if let (State::Queued, Some(route)) = (task.state, route) {
        fleet.ahead = shared.store.ahead(route, task.rank()).await.map_err(status::store)?;
    }
    let mut causes = explain::causes(task, fleet, now());
    if let Some(cause) = cannot_start(shared, task, fleet) {
        causes.insert(0, cause);
    }
    if let Some(cause) = paused(shared, task) {
        causes.insert(0, cause);
    }
    let summary = explain::summary(task, &causes, now());
    let causes = causes.into_iter().map(|cause| v1::Cause {
        code: cause.code.to_owned(),
        message: cause.message,
        hint: cause.hint,
    });
    Ok(v1::ExplainTaskResponse {
        task: Some(wire::to_wire(task, None, None)),
        summary,
        causes: causes.collect(),
        ahead: i64::try_from(fleet.ahead).unwrap_or(i64::MAX),
    })
}

/// What whoever starts the workers says of the agent for whose slots it waits.
fn cannot_start(shared: &Shared, task: &Task, fleet: explain::Fleet) -> Option<explain::Cause> {
    if task.state != State::Queued || fleet.free > 0 {
        return None;
    }
    let route = task.route();
    let agent = shared.preferred(&route)?;
    let message = shared.pools.message(&(route.namespace, agent.clone()));
    (!message.is_empty()).then(|| explain::Cause {
        code: "workers_cannot_start",
        message: format!("workers of the agent {agent} cannot start: {message}"),
        hint: format!("see `rota describe agent {agent}`"),
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
