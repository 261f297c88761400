//! Keeps what an attempt leaves behind: uploads it, and has the control plane keep the list, before the result is sent.

use std::time::Duration;

use backon::Retryable;
use rota_client::artifacts::TransferError;
use rota_proto::v1::{ArtifactList, Failure, FailureClass, Severity, SkippedFile, event};
use rota_proto::worker::v1::{Assign, KeepArtifactsRequest};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::calls::{Caller, Retry};
use super::collect::{collect, globs};
use crate::runtimes::{Stop, failure, notice, stopped};
use crate::workspace::AttemptDirs;

/// Longest time for an upload.
const MAX_TIME: Duration = Duration::from_secs(30 * 60);
/// The same of an attempt that was asked to end: the control plane does not wait much longer for its end.
const STOPPING_TIME: Duration = Duration::from_secs(20);
/// Uploads after the control plane has lost parts: it was restarted with another storage.
const MAX_ROUNDS: usize = 3;

/// What an attempt keeps, taken from its assignment.
#[derive(Debug, Default)]
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

/// Stores the files of an attempt. Returns notices for its log. The error is why its result must not count.
pub(crate) async fn keep(
    caller: &Caller,
    kept: Kept,
    dirs: &AttemptDirs,
    mut stop: watch::Receiver<Option<Stop>>,
) -> Result<Vec<event::Kind>, Failure> {
    let keep = globs(&kept.globs).map_err(|error| failure(FailureClass::Invalid, error.to_string()))?;
    let (scratch, workspace) = (dirs.scratch.clone(), dirs.workspace.clone());
    let look = {
        let keep = keep.clone();
        move || collect(&scratch, &workspace, &keep)
    };
    let mut notices = Vec::new();
    let stored = tokio::select! {
        stored = store(caller, &kept, look, &mut notices) => stored,
        () = sleep(MAX_TIME) => Err(Status::deadline_exceeded(format!("it took longer than {MAX_TIME:?}"))),
        () = async { stopped(&mut stop).await; sleep(STOPPING_TIME).await } => {
            Err(Status::deadline_exceeded("the attempt had to end"))
        }
    };
    let Err(status) = stored else { return Ok(notices) };
    let text = format!("failed to store the artifacts: {} ({:?})", status.message(), status.code());
    tracing::warn!(task = kept.task_id, %status, "failed to store artifacts");
    match status.code() {
        // A control plane that keeps none, or no more: the work counts all the same.
        Code::Unimplemented | Code::ResourceExhausted => {
            notices.push(notice(Severity::High, "artifacts_not_stored", text));
            Ok(notices)
        }
        _ => Err(failure(FailureClass::Environment, text)),
    }
}

async fn store(
    caller: &Caller,
    kept: &Kept,
    look: impl Fn() -> super::collect::Found + Clone + Send + 'static,
    notices: &mut Vec<event::Kind>,
) -> Result<(), Status> {
    let internal = |error: tokio::task::JoinError| Status::internal(error.to_string());
    for _ in 0..MAX_ROUNDS {
        let found = tokio::task::spawn_blocking(look.clone()).await.map_err(internal)?;
        let mut skipped = found.skipped;
        if found.sources.is_empty() && skipped.is_empty() {
            return Ok(());
        }
        let uploaded = caller.artifacts(&kept.namespace)?.upload(found.sources, |_, _| {}).await;
        let uploaded = uploaded.map_err(|error| match error {
            TransferError::Call(error) => Status::new(error.code, error.to_string()),
            error => Status::internal(error.to_string()),
        })?;
        let later = uploaded.skipped.into_iter().map(|(name, reason)| SkippedFile { name, reason });
        skipped.extend(later);
        let list = ArtifactList { artifacts: uploaded.artifacts, skipped };
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
            notices.push(summary);
            return Ok(());
        }
    }
    Err(Status::data_loss("the control plane has lost parts that it had stored"))
}

fn summary(list: &ArtifactList) -> event::Kind {
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
    notice(severity, "artifacts_stored", text)
}
