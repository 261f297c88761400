//! What earlier attempts of a task have left, on request of the worker that runs its next one.

use rota_proto::num;
use rota_proto::worker::v1::{FetchCheckpointRequest, FetchCheckpointResponse};
use tonic::Status;

use super::deps::SessionDeps;
use super::running::{self, Named};
use crate::artifacts;
use crate::grpc::continuation;
use crate::trust::identity::Identity;

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
    let lists = artifacts::of_task(&deps.store, &task, 1..=u32::MAX).await?;
    let lists: Vec<_> = lists.into_iter().rev().filter_map(|left| Some((left.attempt, left.list?))).collect();
    let commits = lists.iter().filter_map(|(_, list)| Some(list.changes.as_ref()?.commit.clone())).collect();
    let concluded = num::to_i32(task.concluded);
    let mut later = lists.into_iter().filter(|(attempt, _)| *attempt > concluded).map(|(_, list)| list);
    let artifacts = later.find(|list| list.checkpoint.is_some());
    Ok(FetchCheckpointResponse { artifacts, commits, source })
}
