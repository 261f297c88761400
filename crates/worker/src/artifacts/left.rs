//! What an attempt has left, described on the disk of its worker ([`Left`]) while no storage takes it: the attempt needs no slot meanwhile,
//! and a later process of the worker stores it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rota_proto::v1::Changes;
use rota_proto::worker::v1::Result as AttemptResult;
use tokio::sync::{Notify, watch};

use super::checkpoint::Copied;
use super::keep::Kept;
use crate::workspace::{AttemptDirs, LastCheckpoint, Left, remove_unneeded};

impl Left {
    pub(super) fn of(
        result: AttemptResult,
        kept: &Kept,
        dirs: &AttemptDirs,
        changes: Option<&Changes>,
        copied: Option<&Copied>,
    ) -> Option<Self> {
        let last = dirs.last_checkpoint.lock().clone();
        let stored_digest = last.as_ref().map_or(0, LastCheckpoint::digest);
        Some(Self {
            result,
            namespace: kept.namespace.clone(),
            globs: kept.globs.clone(),
            unusable: kept.unusable,
            changes: changes.cloned(),
            conversation: copied.map(|copied| copied.conversation.clone()),
            digest: copied.map_or(0, |copied| copied.digest),
            stored: last.map(LastCheckpoint::into_list),
            stored_digest,
            has_list: dirs.has_list.load(std::sync::atomic::Ordering::Relaxed),
            // Otherwise a later process could not name it.
            workspace: dirs.workspace.to_str()?.to_owned(),
            cleanup: dirs.cleanup(),
            delivers: dirs.delivery.is_some(),
            shared: dirs.is_shared(),
        })
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            namespace: self.namespace.clone(),
            task_id: self.result.task_id.clone(),
            fence: self.result.fence,
            globs: self.globs.clone(),
            unusable: self.unusable,
            release_after: None,
            limit: Duration::ZERO,
        }
    }

    pub(super) fn copied(&self) -> Option<Copied> {
        let conversation = self.conversation.clone()?;
        Some(Copied { conversation, digest: self.digest })
    }
}

/// Agreement between an attempt and what stores its files: once the attempt wants to release its slot, they are described on the disk.
#[derive(Debug, Default)]
pub(crate) struct SlotRelease {
    wanted: watch::Sender<Option<AttemptResult>>,
    described: watch::Sender<bool>,
    /// Ends one wait between uploads, if the description is wanted then.
    newly_wanted: Arc<Notify>,
}

impl SlotRelease {
    /// Asks for the description of what is left, with how the attempt ends.
    pub(crate) fn want(&self, result: AttemptResult) {
        self.wanted.send_replace(Some(result));
        self.newly_wanted.notify_one();
    }

    /// Returns once it is on the disk.
    pub(crate) async fn described(&self) {
        // The sender is here.
        let _ = self.described.subscribe().wait_for(|described| *described).await;
    }

    /// Returns what is notified once when a description is wanted: a disk may not take it.
    pub(super) fn newly_wanted(&self) -> Arc<Notify> {
        Arc::clone(&self.newly_wanted)
    }

    /// Writes the description once it is wanted, and does not return.
    pub(super) async fn describe(
        &self,
        dirs: &AttemptDirs,
        describe: impl Fn(AttemptResult) -> Option<Left>,
    ) -> Infallible {
        // The sender is here.
        let _ = self.wanted.subscribe().wait_for(Option::is_some).await;
        self.describe_now(dirs, describe).await;
        std::future::pending().await
    }

    /// Writes the description if it is wanted.
    pub(super) async fn describe_now(
        &self,
        dirs: &AttemptDirs,
        describe: impl Fn(AttemptResult) -> Option<Left>,
    ) {
        let wanted = self.wanted.borrow().clone().filter(|_| !*self.described.borrow());
        let Some(left) = wanted.and_then(describe) else { return };
        let own = dirs.own().to_owned();
        let write = move || {
            left.write(&own)?;
            // It may wait for days, and needs nothing else.
            remove_unneeded(&own);
            Ok(())
        };
        match tokio::task::spawn_blocking(write).await.map_err(io::Error::other).flatten() {
            Ok(()) => {
                self.described.send_replace(true);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to write what an attempt left: its slot stays occupied")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn wanted_description_ends_one_wait() {
        let slot = SlotRelease::default();
        let wanted = slot.newly_wanted();
        assert_eq!(wanted.notified().now_or_never(), None);
        slot.want(AttemptResult::default());
        assert_eq!(wanted.notified().now_or_never(), Some(()));
        assert_eq!(wanted.notified().now_or_never(), None, "nothing was written");
    }
}
