//! Branches that a worker may name for a task: the task's own, and that of the work which it continues. Any other one is of another
//! task, whose commits and request no holder of a worker's token claims.

use prost::Message;
use rota_core::task::Task;
use rota_core::{Namespace, TaskId};
use rota_proto::v1::{ArtifactList, Failure, FailureClass, TaskResult, TaskSpec};
use rota_proto::worker::v1::{self as wire, result::Kind};
use tonic::{Code, Status};

use super::checkpoint;
use crate::artifacts;
use crate::store_client::StoreClient;
use crate::wire::check::shorten;
use crate::wire::status::invalid;

/// Whether a branch is a task's own.
pub(crate) fn is_own_branch(task: &Task, branch: &str) -> bool {
    branch.strip_prefix("rota/").is_some_and(|id| id == task.id.to_string())
}

/// Checks the list that an attempt wants to keep. Its workers push to the branch that it names.
pub(super) async fn check(store: &StoreClient, task: &Task, list: &ArtifactList) -> Result<(), Status> {
    match &list.changes {
        Some(changes) if !is_of(store, task, &changes.branch).await? => {
            let why = "must have the branch of the task, or that of the work which it continues";
            Err(invalid("artifacts.changes", why))
        }
        _ => Ok(()),
    }
}

/// Returns the failure that takes the place of a result if it names the branch of another task.
pub(super) async fn foreign(
    store: &StoreClient,
    namespace: &Namespace,
    id: TaskId,
    result: &wire::Result,
) -> Result<Option<Failure>, Status> {
    let succeeded = match &result.kind {
        Some(Kind::Succeeded(result)) => Some(result),
        _ => None,
    };
    let branch = |result: &TaskResult| Some(result.delivery.as_ref()?.branch.clone());
    let named = [succeeded, result.undelivered.as_ref()].into_iter().flatten().filter_map(branch);
    for branch in named.filter(|branch| !branch.is_empty()).collect::<Vec<_>>() {
        // Of one that does not exist, no result is accepted.
        let Some(task) = store.record(namespace, id).await? else { continue };
        let whose = match is_of(store, &task, &branch).await {
            Ok(true) => continue,
            Ok(false) => "which is of another task",
            Err(status) if status.code() == Code::DataLoss => "and a damaged record hides whose that is",
            Err(status) => return Err(status),
        };
        let message = format!("the result names the branch {:?}, {whose}", shorten(&branch));
        return Ok(Some(Failure { class: FailureClass::Protocol.into(), message, ..Failure::default() }));
    }
    Ok(None)
}

async fn is_of(store: &StoreClient, task: &Task, branch: &str) -> Result<bool, Status> {
    if is_own_branch(task, branch) {
        return Ok(true);
    }
    let is_there =
        |list: &ArtifactList| list.changes.as_ref().is_some_and(|changes| changes.branch == branch);
    // They were checked when they were kept.
    let kept = artifacts::of_task(store, task, 1..=u32::MAX).await?;
    if kept.iter().filter_map(|left| left.list.as_ref()).any(is_there) {
        return Ok(true);
    }
    let spec = store.payload(task).await?.unwrap_or_default();
    if TaskSpec::decode(spec).unwrap_or_default().fork {
        return Ok(false);
    }
    let source = checkpoint::source(store, task).await?;
    let pushed = source.filter(|list| list.changes.as_ref().is_some_and(|changes| changes.pushed));
    Ok(pushed.as_ref().is_some_and(is_there))
}
