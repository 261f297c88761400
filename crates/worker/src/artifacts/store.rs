//! One list of artifacts: finds the files, uploads them, and has the control plane keep the list.

use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rota_client::artifacts::{TransferError, Uploaded};
use rota_proto::v1::{ArtifactList, Changes, Checkpoint, SkippedFile, event};
use tonic::{Code, Status};

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
/// Details of the status of an error of the worker's own disk.
pub(super) const UNREADABLE: &[u8] = b"unreadable";

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
        let changes = with_stored(changes.clone(), &uploaded, &skipped)?;
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
        let list = ArtifactList { artifacts, skipped, changes, checkpoint };
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

/// Returns changes without what is not stored of them: a list that names it would be refused. The error is why they are none without
/// it.
fn with_stored(
    changes: Option<Changes>,
    uploaded: &Uploaded,
    skipped: &[SkippedFile],
) -> Result<Option<Changes>, Status> {
    let Some(mut changes) = changes else { return Ok(None) };
    let is_stored = |name: &str| uploaded.artifacts.iter().any(|artifact| artifact.name == name);
    if !is_stored(&changes.patch) {
        // The bundle has everything.
        changes.patch.clear();
    }
    if changes.bundle.is_empty() || is_stored(&changes.bundle) {
        return Ok(Some(changes));
    }
    let text = |reason: &str| format!("the changes of the repository cannot be kept: {reason}");
    if let Some((_, reason)) = uploaded.skipped.iter().find(|(name, _)| *name == changes.bundle) {
        // The disk may be able to read it later, or the worker to open it.
        return Err(Status::with_details(Code::Internal, text(reason), Bytes::from_static(UNREADABLE)));
    }
    let reason = skipped.iter().find(|skipped| skipped.name == changes.bundle);
    let reason = reason.map_or("the bundle is not there", |skipped| skipped.reason.as_str());
    Err(Status::invalid_argument(text(reason)))
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::Artifact;

    use super::*;

    #[test]
    fn lists_name_only_changes_that_are_stored() {
        let changes = Changes { bundle: "git/b".to_owned(), patch: "git/p".to_owned(), ..Changes::default() };
        let of = |stored: &[&str], unread: &[&str], skipped: &[&str]| {
            let artifact = |name: &&str| Artifact { name: (*name).to_owned(), ..Artifact::default() };
            let unread = unread.iter().map(|name| ((*name).to_owned(), "too many open files".to_owned()));
            let skipped = skipped.iter().map(|name| SkippedFile {
                name: (*name).to_owned(),
                reason: "the artifacts of an attempt take at most 8 GiB".to_owned(),
            });
            let artifacts = stored.iter().map(artifact).collect();
            let uploaded = Uploaded { artifacts, skipped: unread.collect() };
            let kept = with_stored(Some(changes.clone()), &uploaded, &skipped.collect::<Vec<_>>());
            kept.map(|kept| kept.unwrap()).map_err(|status| (status.code(), status.message().to_owned()))
        };
        assert_eq!(of(&["git/b", "git/p"], &[], &[]), Ok(changes.clone()));
        assert_eq!(of(&["git/b"], &["git/p"], &[]), Ok(Changes { patch: String::new(), ..changes.clone() }));
        // Waits until it can be read: the agent does not work again for that.
        let (code, text) = of(&["git/p"], &["git/b"], &[]).unwrap_err();
        assert!(code == Code::Internal && text.contains("too many open files"), "{text}");
        let (code, text) = of(&["git/p"], &[], &["git/b"]).unwrap_err();
        assert!(code == Code::InvalidArgument && text.contains("at most 8 GiB"), "{text}");
        assert_eq!(of(&[], &[], &[]).unwrap_err().0, Code::InvalidArgument);
        let empty = Changes { bundle: String::new(), patch: String::new(), ..changes };
        assert!(with_stored(Some(empty), &Uploaded::default(), &[]).is_ok());
    }
}
