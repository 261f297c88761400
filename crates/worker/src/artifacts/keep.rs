//! Keeps what an attempt leaves behind: uploads it, and has the control plane keep the list, before the result is sent.

use std::time::Duration;

use backon::Retryable;
use globset::GlobSet;
use rota_client::artifacts::TransferError;
use rota_proto::v1::{
    ArtifactList, Changes, Checkpoint, Failure, FailureClass, Severity, SkippedFile, event,
};
use rota_proto::worker::v1::{Assign, KeepArtifactsRequest};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::calls::{Caller, Retry};
use super::collect::{collect, globs};
use crate::git::{self, GitError};
use crate::runtimes::{Stop, failure, notice, stopped};
use crate::workspace::AttemptDirs;

/// Time for an upload, if the worker keeps attempts without a control plane for a shorter one.
const MIN_TIME: Duration = Duration::from_secs(30 * 60);
/// The same of an attempt that was asked to end: the control plane does not wait much longer for its end.
const STOPPING_TIME: Duration = Duration::from_secs(20);
/// Uploads after the control plane has lost parts: it was restarted with another storage.
const MAX_ROUNDS: usize = 3;

const HINT: &str = "check the storage of artifacts and the log of the control plane";

/// What an attempt keeps, taken from its assignment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Kept {
    namespace: String,
    task_id: String,
    fence: i64,
    globs: Vec<String>,
}

impl Kept {
    pub(crate) fn of(assign: &Assign) -> Self {
        let workspace = assign.spec.as_ref().and_then(|spec| spec.workspace.as_ref());
        Self {
            namespace: assign.namespace.clone(),
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            globs: workspace.map(|workspace| workspace.keep_files.clone()).unwrap_or_default(),
        }
    }
}

/// Stores the files of an attempt, for which it has as long as `limit` without a control plane, and delivers its changes if it
/// succeeded and its task asks for it. Returns notices for its log. The error is why its result must not count.
pub(crate) async fn keep(
    caller: &Caller,
    kept: Kept,
    dirs: &AttemptDirs,
    deliver: bool,
    limit: Duration,
    mut stop: watch::Receiver<Option<Stop>>,
) -> Result<Vec<event::Kind>, Failure> {
    let limit = limit.max(MIN_TIME);
    let keep = globs(&kept.globs).map_err(|error| failure(FailureClass::Invalid, error.to_string()))?;
    let mut notices = Vec::new();
    let all = async {
        let changes = changes(dirs, &mut notices).await?;
        let look = look(dirs, keep, changes.clone().unwrap_or_default());
        noted(store(caller, &kept, changes.clone(), look.clone(), &mut notices).await, &mut notices)?;
        let (Some(mut changes), Some(delivery)) = (changes, dirs.delivery.as_ref().filter(|_| deliver))
        else {
            return Ok(());
        };
        if changes.commit == changes.base_commit {
            notices.push(notice(Severity::Low, "not_delivered", "nothing has changed: nothing is pushed"));
            return Ok(());
        }
        delivery.push(&changes, &dirs.scratch).await?;
        notices.push(notice(Severity::Low, "delivered", format!("pushed {}", changes.branch)));
        changes.pushed = true;
        // It was kept before, and the work is where it belongs.
        let again = store(caller, &kept, Some(changes), look, &mut Vec::new()).await;
        if let Err(failed) = noted(again, &mut notices) {
            notices.push(notice(Severity::Medium, "artifacts_not_stored", failed.message));
        }
        Ok(())
    };
    let late = |reason: &str| called(&Status::deadline_exceeded(reason));
    let stored = tokio::select! {
        stored = all => stored,
        () = sleep(limit) => Err(late(&format!("it took longer than {limit:?}"))),
        () = async { stopped(&mut stop).await; sleep(STOPPING_TIME).await } => Err(late("the attempt had to end")),
    };
    stored.map(|()| notices)
}

/// Stores the files of an attempt that runs, and from where another one can continue. `quiet` is held while the repository is looked
/// at.
pub(crate) async fn keep_checkpoint(
    caller: &Caller,
    kept: &Kept,
    dirs: &AttemptDirs,
    quiet: &tokio::sync::Mutex<()>,
) -> Result<(), Failure> {
    let keep = globs(&kept.globs).map_err(|error| failure(FailureClass::Invalid, error.to_string()))?;
    let changes = {
        let _quiet = quiet.lock().await;
        changes(dirs, &mut Vec::new()).await?
    };
    // Perhaps it is being changed: an earlier checkpoint is worth more than one without files.
    if changes.is_none() && dirs.repository.is_some() {
        return Err(failure(FailureClass::Environment, "the repository cannot be looked at"));
    }
    let look = look(dirs, keep, changes.clone().unwrap_or_default());
    store(caller, kept, changes, look, &mut Vec::new()).await.map_err(|status| called(&status))
}

/// Returns what finds the files of an attempt.
fn look(
    dirs: &AttemptDirs,
    keep: GlobSet,
    changes: Changes,
) -> impl Fn() -> super::collect::Found + Clone + Send + use<> {
    let (scratch, workspace) = (dirs.scratch.clone(), dirs.workspace.clone());
    let (checkpoint, copies) = (dirs.checkpoint.clone(), dirs.closed("copies"));
    move || {
        let mut found = collect(&scratch, &workspace, &keep, &changes);
        if let Some((folder, redactor)) = &checkpoint {
            found.checkpoint(folder, &copies, redactor);
        }
        found
    }
}

/// Makes a notice of the error of a control plane that keeps none, or no more: the work counts all the same.
fn noted(stored: Result<(), Status>, notices: &mut Vec<event::Kind>) -> Result<(), Failure> {
    let Err(status) = stored else { return Ok(()) };
    tracing::warn!(%status, "failed to store artifacts");
    let failed = called(&status);
    if !matches!(status.code(), Code::Unimplemented | Code::ResourceExhausted) {
        return Err(failed);
    }
    notices.push(notice(Severity::High, "artifacts_not_stored", failed.message));
    Ok(())
}

/// Returns the failure of an attempt whose files cannot be stored. Neither the worker nor the task is to blame.
fn called(status: &Status) -> Failure {
    let text = format!("failed to store the artifacts: {} ({:?})", status.message(), status.code());
    Failure { hint: HINT.to_owned(), ..failure(FailureClass::Source, text) }
}

/// Takes the snapshot of the repository, if the workspace has one. What the agent has broken is named in a notice.
async fn changes(dirs: &AttemptDirs, notices: &mut Vec<event::Kind>) -> Result<Option<Changes>, Failure> {
    let Some((git, base)) = &dirs.repository else { return Ok(None) };
    // A request to end has its own limit, and may have come before.
    let (_sender, mut stop) = watch::channel(None);
    let failed = match git::snapshot(git, base, &dirs.scratch, &mut stop).await {
        Ok(changes) => {
            notices.push(notice(Severity::Low, "changes", describe(&changes)));
            return Ok(Some(changes));
        }
        Err(GitError::Stopped) => return Ok(None),
        Err(GitError::Failed { failure, .. }) => failure,
    };
    match dirs.probe().await {
        Ok(()) => {
            notices.push(notice(Severity::High, "changes_not_kept", failed.message));
            Ok(None)
        }
        Err(error) => {
            let text = format!("{}; the disk does not take files: {error}", failed.message);
            Err(failure(FailureClass::Environment, text))
        }
    }
}

fn describe(changes: &Changes) -> String {
    if changes.commit == changes.base_commit {
        return "the repository has not changed".to_owned();
    }
    let Changes { files, insertions, deletions, branch, .. } = changes;
    format!("{branch} differs in {files} files: {insertions} lines added, {deletions} removed")
}

async fn store(
    caller: &Caller,
    kept: &Kept,
    changes: Option<Changes>,
    look: impl Fn() -> super::collect::Found + Clone + Send + 'static,
    notices: &mut Vec<event::Kind>,
) -> Result<(), Status> {
    let internal = |error: tokio::task::JoinError| Status::internal(error.to_string());
    for _ in 0..MAX_ROUNDS {
        let found = tokio::task::spawn_blocking(look.clone()).await.map_err(internal)?;
        let mut skipped = found.skipped;
        if found.sources.is_empty() && skipped.is_empty() && changes.is_none() {
            return Ok(());
        }
        let uploaded = caller.artifacts(&kept.namespace)?.upload(found.sources, |_, _| {}).await;
        let uploaded = uploaded.map_err(|error| match error {
            TransferError::Call(error) => Status::new(error.code, error.to_string()),
            error => Status::internal(error.to_string()),
        })?;
        let later = uploaded.skipped.into_iter().map(|(name, reason)| SkippedFile { name, reason });
        skipped.extend(later);
        let checkpoint = found.conversation.map(|conversation| Checkpoint { conversation });
        let changes = changes.clone();
        let list = ArtifactList { artifacts: uploaded.artifacts, skipped, changes, checkpoint };
        let summary = summary(&list);
        let request = KeepArtifactsRequest {
            namespace: kept.namespace.clone(),
            worker: caller.worker.clone(),
            task_id: kept.task_id.clone(),
            fence: kept.fence,
            artifacts: Some(list),
        };
        let call = || async {
            let mut service = caller.service()?;
            service.keep_artifacts(Caller::request(request.clone())).await
        };
        let answer = match call.retry(Retry::backoff()).when(Retry::decide()).await {
            // The fence was superseded: what the attempt did counts no more.
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            answer => answer?.into_inner(),
        };
        if answer.missing_parts.is_empty() {
            notices.extend(summary);
            return Ok(());
        }
    }
    Err(Status::data_loss("the control plane has lost parts that it had stored"))
}

fn summary(list: &ArtifactList) -> Option<event::Kind> {
    if list.artifacts.is_empty() && list.skipped.is_empty() {
        return None;
    }
    let count = list.artifacts.len();
    let bytes: i64 = list.artifacts.iter().map(|artifact| artifact.size).sum();
    let mut text = format!("stored {count} {}, {bytes} bytes", if count == 1 { "file" } else { "files" });
    let severity = match list.skipped.first() {
        None => Severity::Low,
        Some(first) => {
            let others = list.skipped.len();
            text = format!("{text}; not {others}, such as {}: {}", first.name, first.reason);
            Severity::Medium
        }
    };
    Some(notice(severity, "artifacts_stored", text))
}
