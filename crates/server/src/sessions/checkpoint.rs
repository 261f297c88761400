//! What earlier attempts of a task have left, on request of the worker that runs its next one.

use prost::Message;
use rota_core::task::Task;
use rota_proto::v1::{ArtifactList, TaskResult};
use rota_proto::worker::v1::{FetchCheckpointRequest, FetchCheckpointResponse, UndeliveredWork};
use rota_proto::{num, reasons};
use tonic::Status;

use super::deps::SessionDeps;
use super::running::{self, Named};
use crate::artifacts;
use crate::creation::continuation;
use crate::store_client::StoreClient;
use crate::trust::identity::Identity;
use crate::watchers::is_managed;
use crate::wire::overrides;
use crate::wire::status::{self, error, hinted};

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
    let source = match given(&deps.store, &task).await? {
        Some(source) => Some(source),
        None => of_thread(deps, &task).await?,
    };
    let lists = artifacts::of_task(&deps.store, &task, 1..=u32::MAX).await?;
    let lists: Vec<_> = lists.into_iter().rev().filter_map(|left| Some((left.attempt, left.list?))).collect();
    let mut commits = commits(lists.iter().map(|(_, list)| list));
    commits.extend(self::commits(source.iter()));
    // What it repeats had the same branch, if it continues the work of another task.
    if source.is_some()
        && let Some(id) = task.retry_of
        && let Some(before) = deps.store.record(&task.namespace, id).await?
    {
        let lists = artifacts::of_task(&deps.store, &before, 1..=u32::MAX).await?;
        let lists: Vec<_> = lists.into_iter().filter_map(|attempt| attempt.list).collect();
        commits.extend(self::commits(lists.iter()));
    }
    let undelivered = match task.undelivered {
        Some(left) => Some(undelivered(deps, &task, left.attempt).await?),
        None => None,
    };
    let concluded = num::to_i32(task.concluded);
    let mut later = lists.into_iter().filter(|(attempt, _)| *attempt > concluded).map(|(_, list)| list);
    let artifacts = later.find(|list| list.checkpoint.is_some());
    Ok(FetchCheckpointResponse { artifacts, commits, source, undelivered })
}

/// Returns the work that a task continues, whether or not its agent may.
pub(super) async fn source(store: &StoreClient, task: &Task) -> Result<Option<ArtifactList>, Status> {
    if let Some(given) = given(store, task).await? {
        return Ok(Some(given));
    }
    match before(store, task).await? {
        Some(before) => continuation::checkpoint_of(store, &before).await,
        None => Ok(None),
    }
}

/// Returns the work that a task was given to continue.
async fn given(store: &StoreClient, task: &Task) -> Result<Option<ArtifactList>, Status> {
    Ok(artifacts::of_attempt(store, task, 0).await?.and_then(continuation::checkpoint))
}

/// Returns the task of its thread whose conversation a task continues.
async fn before(store: &StoreClient, task: &Task) -> Result<Option<Task>, Status> {
    let Some(thread) = task.thread.clone() else { return Ok(None) };
    let found = store.reads().thread((task.namespace.clone(), thread)).await.map_err(status::store)?;
    match found.and_then(|thread| thread.conversation) {
        Some((_, id)) => store.record(&task.namespace, id).await,
        None => Ok(None),
    }
}

/// Returns the work of an attempt that a later one delivers.
async fn undelivered(deps: &SessionDeps, task: &Task, attempt: u32) -> Result<UndeliveredWork, Status> {
    let result = deps.store.reads().result(task.key).await.map_err(status::store)?;
    let result = result.and_then(|bytes| TaskResult::decode(&bytes[..]).ok());
    let artifacts = artifacts::of_attempt(&deps.store, task, attempt).await?;
    Ok(UndeliveredWork { result, artifacts, cost_micro_usd: task.usage.cost_micro_usd })
}

/// Returns the last commits of lists.
fn commits<'a>(lists: impl Iterator<Item = &'a ArtifactList>) -> Vec<String> {
    lists.filter_map(|list| Some(list.changes.as_ref()?.commit.clone())).collect()
}

/// Returns the checkpoint that the tasks of a thread continue, which stays the same while one of them runs.
async fn of_thread(deps: &SessionDeps, task: &Task) -> Result<Option<ArtifactList>, Status> {
    let Some(before) = before(&deps.store, task).await? else { return Ok(None) };
    // Known only now: what the thread had at the creation of the task was checked then.
    let agent = task.target.agent().filter(|_| !task.continues_other_agent);
    let agent = agent.and_then(|agent| deps.agents.get(&(task.namespace.clone(), agent.clone())));
    let of_other = continuation::is_of_other_agent(&before, task) && !task.continues_other_agent;
    if let Some(forbidden) =
        overrides::check_source(&agent.map(|known| known.spec).unwrap_or_default(), of_other).err()
    {
        return Err(hinted(reasons::OVERRIDE_FORBIDDEN, forbidden.to_string(), forbidden.hint()));
    }
    if is_managed(task) && !is_managed(&before) {
        return Err(error("TASK_NOT_FOUND", format!("task {} does not exist in any cluster", before.id)));
    }
    // Without it, the task would work on nothing.
    match continuation::checkpoint_of(&deps.store, &before).await? {
        Some(list) => Ok(Some(list)),
        None => Err(continuation::no_checkpoint(before.id)),
    }
}
