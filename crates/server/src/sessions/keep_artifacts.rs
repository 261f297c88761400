//! The list of what an attempt has stored, on request of the worker that runs it.

use prost::Message;
use rota_core::task::{AttemptRef, Command, Reply, WorkerRef};
use rota_proto::artifact_names::{CHECKPOINT, GIT, OUTPUT, WORKSPACE};
use rota_proto::worker::v1::{KeepArtifactsRequest, KeepArtifactsResponse};
use tonic::Status;

use super::branches;
use super::deps::SessionDeps;
use super::running::{self, Named, absent};
use crate::artifacts;
use crate::trust::identity::Identity;

/// Folders of what an attempt may keep.
const FOLDERS: [&str; 4] = [OUTPUT, WORKSPACE, GIT, CHECKPOINT];

/// Keeps a list, unless a part of it is not stored.
pub(super) async fn keep(
    deps: &SessionDeps,
    holder: Option<&Identity>,
    request: KeepArtifactsRequest,
) -> Result<KeepArtifactsResponse, Status> {
    let named = Named {
        namespace: &request.namespace,
        worker: &request.worker,
        task_id: &request.task_id,
        fence: request.fence,
    };
    let task = running::task(deps, holder, named, |_| true).await?;
    let mut list = request.artifacts.unwrap_or_default();
    deps.artifacts.admit_list(&task.namespace)?;
    artifacts::check("artifacts", &mut list, &FOLDERS)?;
    branches::check(&deps.store, &task, &list).await?;
    let parts = artifacts::digests(&list.artifacts);
    let (missing, pin) = deps.artifacts.missing(&task.namespace, &parts).await?;
    if !missing.is_empty() {
        let missing_parts = missing.iter().map(|digest| digest.as_bytes().to_vec()).collect();
        return Ok(KeepArtifactsResponse { missing_parts });
    }
    let assignment = task.assignment.ok_or_else(absent)?;
    let by = WorkerRef { worker: assignment.worker, epoch: assignment.epoch };
    let attempt = AttemptRef { by, fence: task.fence };
    let unusable = list.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.unusable);
    let checkpoint = list.checkpoint.is_some() && !unusable;
    let list = list.encode_to_vec().into();
    let command = Command::KeepArtifacts { attempt, list, checkpoint, unusable };
    let kept = deps.store.command(task.namespace, task.id, command, false).await;
    drop(pin);
    match kept?.1 {
        Reply::Stale => Err(absent()),
        _ => Ok(KeepArtifactsResponse::default()),
    }
}
