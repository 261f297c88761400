//! Checkpoints of attempts that run, and continuing the work of one that was cut off: brings its conversation and its changes to
//! this worker.

use std::convert::Infallible;
use std::path::Path;

use backon::Retryable;
use rota_proto::v1::{Artifact, Failure, FailureClass, Severity, event};
use rota_proto::worker::v1::{Assign, Checkpoints, FetchCheckpointRequest, FetchCheckpointResponse};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::attempt::AttemptDeps;
use crate::artifacts::{self, Caller, Given, Kept, Retry};
use crate::git::{self, Delivery, GitError};
use crate::runtimes::{CheckpointFolder, Continued, RunOutcome, Stop, failure, notice, stopped};
use crate::workspace::AttemptDirs;

/// Whether the last attempt was cut off. One that has failed by itself would fail in the same way: the next one starts over.
fn was_cut_off(checkpoints: &Checkpoints) -> bool {
    let class = checkpoints.last_failure.as_ref().map(rota_proto::v1::Failure::class);
    !matches!(
        class,
        Some(
            FailureClass::Agent
                | FailureClass::Refusal
                | FailureClass::Budget
                | FailureClass::Invalid
                | FailureClass::Protocol
                | FailureClass::Checks
        )
    )
}

/// Why a checkpoint is not restored.
enum Unusable {
    Reason(String),
    Outcome(RunOutcome),
}

/// Brings the newest checkpoint of the task into the directories of an attempt, whose programs have not started. Returns from where
/// the attempt continues; `None` if it starts over.
pub(super) async fn restore(
    caller: &Caller,
    assign: &Assign,
    folder: &CheckpointFolder,
    dirs: &mut AttemptDirs,
    events: &mpsc::Sender<event::Kind>,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Option<Continued>, RunOutcome> {
    let checkpoints = assign.checkpoints.as_ref().filter(|known| known.exist && was_cut_off(known));
    let Some(checkpoints) = checkpoints.filter(|_| dirs.fresh) else { return Ok(None) };
    let mut stop_of_git = stop.clone();
    let restored = tokio::select! {
        restored = bring(caller, assign, folder, dirs, &mut stop_of_git) => restored,
        _ = stopped(stop) => Err(Unusable::Outcome(RunOutcome::Stopped { by: "interrupt" })),
    };
    let (conversation, has_files) = match restored {
        Ok(Some(restored)) => restored,
        Ok(None) => return Ok(None),
        Err(Unusable::Outcome(outcome)) => return Err(outcome),
        Err(Unusable::Reason(reason)) => {
            let text =
                format!("the checkpoint of an earlier attempt cannot be used: {reason}; starting over");
            let _ = events.send(notice(Severity::Medium, "checkpoint_unusable", text)).await;
            return Ok(None);
        }
    };
    let reason = match &checkpoints.last_failure {
        Some(failed) => failed.message.clone(),
        None => "its worker had to stop".to_owned(),
    };
    let text = format!("continuing the work of an earlier attempt, which was cut off: {reason}");
    let _ = events.send(notice(Severity::Low, "continued", text)).await;
    Ok(Some(Continued { conversation, reason, has_files }))
}

/// Returns the conversation, and whether the files are those of the checkpoint.
async fn bring(
    caller: &Caller,
    assign: &Assign,
    folder: &CheckpointFolder,
    dirs: &mut AttemptDirs,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Option<(String, bool)>, Unusable> {
    let left = fetch(caller, assign).await.map_err(|status| Unusable::Reason(status.to_string()))?;
    let Some(list) = left.artifacts else { return Ok(None) };
    let Some(checkpoint) = list.checkpoint else { return Ok(None) };
    let mut has_files = false;
    if let (Some(changes), Some((git, base))) = (&list.changes, &mut dirs.repository)
        && let Some(bundle) = list.artifacts.iter().find(|artifact| artifact.name == changes.bundle)
    {
        let at = dirs.scratch.join("restored");
        download(caller, assign, vec![bundle.clone()], &at).await?;
        git::restore(git, base, &at.join(&bundle.name), changes, stop).await.map_err(
            |error| match error {
                GitError::Stopped => Unusable::Outcome(RunOutcome::Stopped { by: "interrupt" }),
                GitError::Failed { failure, .. } => Unusable::Reason(failure.message),
            },
        )?;
        has_files = true;
    }
    let of_checkpoint = |artifact: Artifact| {
        let name = artifact.name.strip_prefix(artifacts::CHECKPOINT)?.strip_prefix('/')?.to_owned();
        Some(Artifact { name, ..artifact })
    };
    let artifacts = list.artifacts.into_iter().filter_map(of_checkpoint).collect();
    download(caller, assign, artifacts, &folder.root.join(&folder.within)).await?;
    Ok(Some((checkpoint.conversation, has_files)))
}

async fn download(
    caller: &Caller,
    assign: &Assign,
    artifacts: Vec<Artifact>,
    to: &Path,
) -> Result<(), Unusable> {
    let failed = |text: String| RunOutcome::Failed(failure(FailureClass::Environment, text));
    tokio::fs::create_dir_all(to).await.map_err(|error| {
        Unusable::Outcome(failed(format!("failed to create the directories of the checkpoint: {error}")))
    })?;
    Given::files(artifacts).fetch(caller, &assign.namespace, to).await.map_err(|outcome| match outcome {
        RunOutcome::Failed(failed) if failed.class() != FailureClass::Environment => {
            Unusable::Reason(failed.message)
        }
        outcome => Unusable::Outcome(outcome),
    })
}

/// Keeps checkpoints of an attempt that runs, now and then.
pub(super) async fn checkpoints(
    deps: &AttemptDeps,
    kept: &Kept,
    dirs: Option<&AttemptDirs>,
    events: &mpsc::Sender<event::Kind>,
    quiet: &tokio::sync::Mutex<()>,
) -> Infallible {
    let interval = deps.checkpoint_interval;
    let Some(dirs) = dirs.filter(|dirs| dirs.checkpoint.is_some() && !interval.is_zero()) else {
        return std::future::pending().await;
    };
    let mut noticed = false;
    loop {
        tokio::time::sleep(interval).await;
        if let Err(failed) = artifacts::keep_checkpoint(&deps.caller, kept, dirs, quiet).await {
            tracing::warn!(error = failed.message, "failed to keep a checkpoint");
            if !std::mem::replace(&mut noticed, true) {
                let _ = events.try_send(notice(Severity::Medium, "checkpoint_failed", failed.message));
            }
        }
    }
}

/// Makes sure that what the task's branch has at the host may be replaced: nothing, or what an earlier attempt has pushed.
pub(super) async fn check_branch(
    caller: &Caller,
    assign: &Assign,
    delivery: &Delivery,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), RunOutcome> {
    if delivery.seen.is_empty() {
        return Ok(());
    }
    let left = tokio::select! {
        left = fetch(caller, assign) => left,
        _ = stopped(stop) => return Err(RunOutcome::Stopped { by: "interrupt" }),
    };
    let failed = |class, text: String| RunOutcome::Failed(failure(class, text));
    let left = left.map_err(|status| {
        let text = format!("failed to ask what earlier attempts have pushed: {}", status.message());
        failed(FailureClass::Environment, text)
    })?;
    if left.commits.contains(&delivery.seen) {
        return Ok(());
    }
    let text = format!(
        "branch {} of the repository has commit {}, which no earlier attempt of the task has left",
        delivery.branch, delivery.seen
    );
    let hint = "delete the branch at the host, or give the task another id".to_owned();
    Err(RunOutcome::Failed(Failure { hint, ..failure(FailureClass::Delivery, text) }))
}

/// Returns what earlier attempts have left. Waits for a control plane that is away.
async fn fetch(caller: &Caller, assign: &Assign) -> Result<FetchCheckpointResponse, Status> {
    let request = FetchCheckpointRequest {
        namespace: assign.namespace.clone(),
        worker: caller.worker.clone(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
    };
    let call = || async { caller.service()?.fetch_checkpoint(Caller::request(request.clone())).await };
    Ok(call.retry(Retry::backoff()).when(Retry::decide()).await?.into_inner())
}
