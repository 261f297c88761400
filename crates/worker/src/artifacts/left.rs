//! What an attempt has left, described on the disk of its worker while no storage takes it: the attempt needs no slot meanwhile, and a later
//! process of the worker stores it. Has no secrets, so it pushes nothing: later attempts deliver.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::syncfs;
use prost::Message;
use rota_proto::v1::{ArtifactList, Changes};
use rota_proto::worker::v1::Result as AttemptResult;
use tokio::sync::{Notify, watch};

use super::checkpoint::Copied;
use super::keep::Kept;
use super::store::LastCheckpoint;
use crate::workspace::AttemptDirs;

/// File in the directory of the attempt.
pub(crate) const FILE: &str = "left";
/// Bytes of the file: a result and lists of artifacts, each of which has bounds.
const MAX_BYTES: u64 = 16 << 20;

/// Description of what an attempt has left. Later versions read it: a field keeps its number and its meaning.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Left {
    /// How the attempt ends once all is stored.
    #[prost(message, required, tag = "1")]
    pub(crate) result: AttemptResult,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) globs: Vec<String>,
    #[prost(bool, tag = "4")]
    pub(super) unusable: bool,
    #[prost(message, optional, tag = "5")]
    pub(super) changes: Option<Changes>,
    /// Conversation and digest of the copies for a later attempt.
    #[prost(string, optional, tag = "6")]
    pub(super) conversation: Option<String>,
    #[prost(fixed64, tag = "7")]
    pub(super) digest: u64,
    /// The newest checkpoint that is stored, with the artifacts that are its files.
    #[prost(message, optional, tag = "8")]
    pub(super) stored: Option<ArtifactList>,
    #[prost(fixed64, tag = "9")]
    pub(super) stored_digest: u64,
    #[prost(bool, tag = "10")]
    pub(crate) has_list: bool,
    #[prost(string, tag = "11")]
    pub(crate) workspace: String,
    /// What becomes of the workspace, as `WorkspaceCleanup`.
    #[prost(int32, tag = "12")]
    pub(crate) cleanup: i32,
    /// Whether the changes are to be delivered.
    #[prost(bool, tag = "13")]
    pub(super) delivers: bool,
    /// Whether other attempts may work in the workspace meanwhile.
    #[prost(bool, tag = "14")]
    pub(crate) shared: bool,
}

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

    /// Writes the file once what it describes is durable: all or nothing, also if the machine fails. Blocks.
    fn write(&self, own: &Path) -> io::Result<()> {
        for folder in [own, Path::new(&self.workspace)] {
            match File::options().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(folder) {
                // Programs of the attempt may have removed their workspace.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                opened => syncfs(opened?)?,
            }
        }
        let mut file = tempfile::NamedTempFile::new_in(own)?;
        file.write_all(&self.encode_to_vec())?;
        file.as_file().sync_all()?;
        file.persist(own.join(FILE))?;
        File::open(own)?.sync_all()
    }

    /// Reads the file in the directory of an attempt, if there is one. Blocks.
    pub(crate) fn read(own: &Path) -> Option<Self> {
        let path = own.join(FILE);
        let found =
            path.symlink_metadata().ok().filter(|found| found.is_file() && found.len() <= MAX_BYTES)?;
        let read = std::fs::read(&path).and_then(|bytes| Ok(Self::decode(bytes.as_slice())?));
        let bytes = found.len();
        read.inspect_err(|error| tracing::warn!(path = %path.display(), %error, bytes, "failed to read what an attempt left")).ok()
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

    /// Returns the newest checkpoint that is stored.
    pub(crate) fn last_checkpoint(&self) -> Option<LastCheckpoint> {
        LastCheckpoint::of_list(self.stored.clone()?, self.stored_digest)
    }
}

/// Whether the directory of an attempt has what it left. Blocks.
pub(crate) fn is_left(own: &Path) -> bool {
    own.join(FILE).is_file()
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
            crate::workspace::remove_unneeded(&own);
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
    use rota_proto::v1::{Artifact, WorkspaceCleanup};

    use super::*;

    /// A file that an earlier version has written: later ones store what it describes, or work would be lost.
    const RECORDED: &[u8] = b"\x0a\x08\x0a\x04task\x10\x03\x12\x07default\x1a\x07dist/**\x20\x01\x2a\x06\x12\x04c0de\x32\x04talk\
        \x39\x01\x00\x00\x00\x00\x00\x00\x80\x42\x0e\x0a\x0c\x0a\x0acheckpoint\x49\x02\x00\x00\x00\x00\x00\x00\x00\x50\x01\x5a\x05/work\x60\x02\
        \x68\x01\x70\x01";

    #[test]
    fn files_of_earlier_versions_are_read() {
        let own = tempfile::tempdir().unwrap();
        std::fs::write(own.path().join(FILE), RECORDED).unwrap();
        let artifact = Artifact { name: "checkpoint".to_owned(), ..Artifact::default() };
        let expected = Left {
            result: AttemptResult { task_id: "task".to_owned(), fence: 3, ..AttemptResult::default() },
            namespace: "default".to_owned(),
            globs: vec!["dist/**".to_owned()],
            unusable: true,
            changes: Some(Changes { commit: "c0de".to_owned(), ..Changes::default() }),
            conversation: Some("talk".to_owned()),
            digest: 0x8000_0000_0000_0001,
            stored: Some(ArtifactList { artifacts: vec![artifact], ..ArtifactList::default() }),
            stored_digest: 2,
            has_list: true,
            workspace: "/work".to_owned(),
            cleanup: WorkspaceCleanup::OnSuccess.into(),
            delivers: true,
            shared: true,
        };
        assert_eq!(Left::read(own.path()), Some(expected));
    }

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
