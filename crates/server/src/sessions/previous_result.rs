//! Results of dependencies and children that an assignment omits, and their artifacts, on request of the worker that runs the attempt.

use prost::Message;
use rota_core::TaskId;
use rota_proto::v1;
use rota_proto::worker::v1::{FetchPreviousResultRequest, FetchPreviousResultResponse};
use tonic::Status;

use super::deps::SessionDeps;
use super::running::{self, Named, absent};
use crate::artifacts;
use crate::trust::identity::Identity;
use crate::wire::status::{error, invalid};

/// Returns the result and the artifacts of a dependency, or a child, of the task of a running attempt.
pub(super) async fn get(
    deps: &SessionDeps,
    holder: Option<&Identity>,
    request: &FetchPreviousResultRequest,
) -> Result<FetchPreviousResultResponse, Status> {
    let store = &deps.store;
    let id: TaskId =
        request.previous_task_id.parse().map_err(|_| invalid("previous_task_id", "is not a task's id"))?;
    let named = Named {
        namespace: &request.namespace,
        worker: &request.worker,
        task_id: &request.task_id,
        fence: request.fence,
    };
    let task = running::task(deps, holder, named, |task| task.builds_on().any(|one| one == id)).await?;
    let dependency = store.record(&task.namespace, id).await?.ok_or_else(absent)?;
    let result = store.result(&dependency).await?;
    let result = result.map(|result| v1::TaskResult::decode(&result[..])).transpose();
    let result = result.map_err(|_| error("STORE_CORRUPT", "the result of the task cannot be decoded"))?;
    let artifacts = artifacts::left_by(store, &dependency).await?;
    Ok(FetchPreviousResultResponse { result, artifacts })
}
