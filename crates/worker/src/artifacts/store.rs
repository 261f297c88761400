//! One list of artifacts: finds the files, uploads them, and has the control plane keep the list.

use std::path::Path;
use std::sync::atomic::Ordering;

use rota_client::artifacts::TransferError;
use rota_proto::v1::{ArtifactList, Changes, Checkpoint, SkippedFile, event};
use tonic::Status;

use super::calls::Caller;
use super::checkpoint::{self, Copied};
use super::collect::{Found, collect};
use super::globs::Keep;
use super::keep::Kept;
use super::summary::summary;
use crate::layout::Own;
use crate::workspace::{AttemptDirs, LastCheckpoint};

/// Uploads after the control plane has lost parts: it was restarted with another storage.
const MAX_ROUNDS: usize = 3;

/// What is found, with the state that a checkpoint of it has.
pub(super) struct Looked {
    pub(super) found: Found,
    pub(super) digest: u64,
}

/// Returns what finds the files of an attempt; without globs, only those of a checkpoint.
pub(super) fn look(
    dirs: &AttemptDirs,
    keep: Option<Keep>,
    changes: Changes,
    copied: Option<Copied>,
) -> impl Fn() -> Looked + Clone + Send + use<> {
    let (scratch, workspace) = (dirs.scratch.clone(), dirs.workspace.clone());
    let copies = Own(dirs.own()).copies();
    let earlier = dirs.last_checkpoint.lock().as_ref().map_or(0, LastCheckpoint::list_bytes);
    move || {
        let digest = copied.as_ref().map_or(0, |copied| copied.digest);
        let found = match &copied {
            Some(copied) => Found::checkpoint(&copies, copied.conversation.clone()),
            None => Found::default(),
        };
        let found = found.reserve(earlier);
        let found = match &keep {
            Some(keep) => collect(found, &scratch, &workspace, keep, &changes),
            None => found.with_changes(&scratch, &changes),
        };
        Looked { found, digest }
    }
}

/// What has become of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Kept,
    /// The control plane keeps none, or no more.
    Nowhere,
    /// Another attempt has taken the place of this one, or none is wanted: what it did counts no more.
    Superseded,
}

/// Stores what is found, and has the control plane keep the list. `whole`: not without a checkpoint.
pub(super) async fn store(
    caller: &Caller,
    kept: &Kept,
    dirs: &AttemptDirs,
    changes: Option<Changes>,
    look: impl Fn() -> Looked + Clone + Send + 'static,
    whole: bool,
    notices: &mut Vec<event::Kind>,
) -> Result<Stored, Status> {
    let internal = |error: tokio::task::JoinError| Status::internal(error.to_string());
    for _ in 0..MAX_ROUNDS {
        let Looked { found, digest } = tokio::task::spawn_blocking(look.clone()).await.map_err(internal)?;
        let mut skipped = found.skipped;
        let is_empty = found.sources.is_empty() && skipped.is_empty() && changes.is_none();
        if is_empty && !kept.unusable && !dirs.has_list.load(Ordering::Relaxed) {
            return Ok(Stored::Kept);
        }
        let uploaded = caller.artifacts(&kept.namespace)?.upload(found.sources, |_, _| {}).await;
        let uploaded = uploaded.map_err(|error| match error {
            TransferError::Call(error) => Status::from(error),
            error => Status::internal(error.to_string()),
        })?;
        let is_part = |name: &str| Path::new(name).starts_with(checkpoint::FOLDER);
        let lost = uploaded.skipped.iter().any(|(name, _)| is_part(name));
        let later = uploaded.skipped.into_iter().map(|(name, reason)| SkippedFile { name, reason });
        skipped.extend(later);
        let unusable = kept.unusable;
        let own = found.conversation.filter(|_| !lost);
        let own = own.map(|conversation| Checkpoint { conversation, unusable });
        if whole && own.is_none() {
            let reason = skipped.iter().find(|skipped| is_part(&skipped.name));
            let reason = reason.map_or_else(String::new, |skipped| format!(": {}", skipped.reason));
            return Err(Status::internal(format!("a part of the checkpoint cannot be kept{reason}")));
        }
        let (mut artifacts, mut checkpoint) = (uploaded.artifacts, own.clone());
        // An older one is better than none.
        let last = dirs.last_checkpoint.lock().clone();
        if let (None, Some(last)) = (&checkpoint, last) {
            artifacts.retain(|artifact| !is_part(&artifact.name));
            artifacts.extend(last.artifacts);
            checkpoint = Some(Checkpoint { unusable, ..last.checkpoint });
        }
        // Also if there is nothing to continue from.
        let checkpoint =
            checkpoint.or_else(|| unusable.then(|| Checkpoint { unusable, ..Checkpoint::default() }));
        let of_checkpoint = own.map(|checkpoint| LastCheckpoint {
            checkpoint,
            artifacts: artifacts.iter().filter(|artifact| is_part(&artifact.name)).cloned().collect(),
            state: (digest, changes.as_ref().map(|changes| changes.commit.clone()).unwrap_or_default()),
        });
        let list = ArtifactList { artifacts, skipped, changes: changes.clone(), checkpoint };
        let summary = summary(&list);
        let Some(missing) = caller.keep_list(kept, list).await? else { return Ok(Stored::Superseded) };
        if missing.is_empty() {
            dirs.has_list.store(true, Ordering::Relaxed);
            if of_checkpoint.is_some() {
                *dirs.last_checkpoint.lock() = of_checkpoint;
            }
            notices.extend(summary);
            return Ok(Stored::Kept);
        }
    }
    // Another try may find a storage that keeps them.
    Err(Status::aborted("the control plane has lost parts that it had stored"))
}
