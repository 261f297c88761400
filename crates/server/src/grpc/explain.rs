//! Why a task is not running: the record's reasons, with what the fleet says.

use rota_core::task::{State, Task, explain};
use rota_proto::v1;
use tonic::Status;

use crate::shared::{Shared, now};
use crate::wire::{status, task as wire};

pub(super) async fn explain(shared: &Shared, task: &Task) -> Result<v1::ExplainTaskResponse, Status> {
    let (route, mut fleet) = shared.fleet.seen_from(&task.route());
    if let (State::Queued, Some(route)) = (task.state, route) {
        fleet.ahead = shared.store.ahead(route, task.rank()).await.map_err(status::store)?;
    }
    let causes = explain::causes(task, fleet, now());
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
