//! What earlier attempts of a task have left, on request of the worker that runs its next one.

use rota_core::task::Task;
use rota_proto::num;
use rota_proto::v1::ArtifactList;
use rota_proto::worker::v1::{FetchCheckpointRequest, FetchCheckpointResponse};
use tonic::Status;

use super::deps::SessionDeps;
use super::running::{self, Named};
use crate::artifacts;
use crate::grpc::continuation;
use crate::trust::identity::Identity;
use crate::wire::status;

/// Returns from where a running attempt can continue, and the commits that it may replace at the host.
pub(super) async fn get(
    deps: &SessionDeps,
    holder: Option<&Identity>,
    request: &FetchCheckpointRequest,
) -> Result<FetchCheckpointResponse, Status> {
    let named = Named {
        namespace: &request.namespace,
        worker: &request.worker,
        task_id: &request.task_id,
        fence: request.fence,
    };
    let task = running::task(deps, holder, named, |_| true).await?;
    let input = artifacts::of_task(&deps.store, &task, 0..=0).await?;
    let source = input.into_iter().filter_map(|input| input.list).find_map(continuation::checkpoint);
    let source = match source {
        Some(source) => Some(source),
        None => of_thread(deps, &task).await?,
    };
    let lists = artifacts::of_task(&deps.store, &task, 1..=u32::MAX).await?;
    let lists: Vec<_> = lists.into_iter().rev().filter_map(|left| Some((left.attempt, left.list?))).collect();
    let commits = lists.iter().filter_map(|(_, list)| Some(list.changes.as_ref()?.commit.clone())).collect();
    let concluded = num::to_i32(task.concluded);
    let mut later = lists.into_iter().filter(|(attempt, _)| *attempt > concluded).map(|(_, list)| list);
    let artifacts = later.find(|list| list.checkpoint.is_some());
    Ok(FetchCheckpointResponse { artifacts, commits, source })
}

/// Returns the checkpoint that the tasks of a thread continue, which stays the same while one of them runs.
async fn of_thread(deps: &SessionDeps, task: &Task) -> Result<Option<ArtifactList>, Status> {
    let Some(thread) = task.thread.clone() else { return Ok(None) };
    let found = deps.store.reads().thread((task.namespace.clone(), thread)).await.map_err(status::store)?;
    let Some((_, id)) = found.and_then(|thread| thread.conversation) else { return Ok(None) };
    let Some(before) = deps.store.record(&task.namespace, id).await? else { return Ok(None) };
    continuation::checkpoint_of(&deps.store, &before).await
}
