//! Directories of one attempt: what is in them, and their removal.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rota_proto::v1::WorkspaceCleanup;
use rota_proto::worker::v1::{Assign, UndeliveredWork};
use rota_telemetry::redact::Redactor;

use super::kept_by::KeptBy;
use super::last_checkpoint::LastCheckpoint;
use crate::files::{Lock, last_use, probe_in_time, remove};
use crate::git::{Base, Borrowed, Delivery, Git};
use crate::layout::Sibling;
use crate::runtimes::CheckpointFolder;

/// The directories, and the lock of a kept workspace.
#[derive(Debug)]
pub(crate) struct AttemptDirs {
    pub(crate) workspace: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(super) own: PathBuf,
    pub(super) trash: PathBuf,
    pub(super) cleanup: WorkspaceCleanup,
    /// Lock on a kept workspace, held while this is open.
    pub(super) lock: Option<File>,
    /// Lock on a directory that existed before, held while this is open.
    pub(super) in_place: Option<(File, Lock)>,
    /// Which files of a user's own checkout were copied into the workspace, for the log.
    pub(crate) included: Option<String>,
    /// The clone in the workspace, and how git is called in it.
    pub(crate) repository: Option<(Git, Base)>,
    /// What is needed to push the changes.
    pub(crate) delivery: Option<Delivery>,
    /// Work of an earlier attempt, which this one only delivers.
    pub(crate) undelivered: Option<Box<UndeliveredWork>>,
    /// Whether the workspace was made for this attempt.
    pub(crate) made: bool,
    /// The same, and there is nothing next to it either that a program has written before.
    pub(crate) fresh: bool,
    /// Whether it is a kept one that has the work of the task's last attempt.
    pub(crate) own_work: bool,
    /// Where the kept workspace is that was behind the task's newest checkpoint.
    pub(crate) set_aside: Option<PathBuf>,
    /// Whether the agent was started in it.
    pub(crate) started: bool,
    /// What a later attempt can continue from, and what is redacted in it.
    pub(crate) checkpoint: Option<(CheckpointFolder, Redactor)>,
    /// The last one that is kept.
    pub(crate) last_checkpoint: Mutex<Option<LastCheckpoint>>,
    /// Whether a list of artifacts of the attempt is kept: what it keeps later takes the place of it, also if that is nothing.
    pub(crate) has_list: AtomicBool,
    /// Held while copies of the conversation are made: those that were given up go on.
    pub(crate) copying: Arc<tokio::sync::Mutex<()>>,
    pub(super) borrowed: Option<Borrowed>,
}

impl AttemptDirs {
    /// Notes that the agent is started in the workspace, which has from now on the work of this attempt.
    pub(crate) fn start(&mut self, assign: &Assign) {
        self.started = true;
        if self.lock.is_some()
            && let Err(error) = KeptBy::new(&assign.task_id, assign.attempt, true).write(&self.workspace)
        {
            tracing::warn!(%error, "failed to note whose work a workspace has");
        }
    }

    /// Lets the list of artifacts that is kept next have no checkpoint.
    pub(crate) fn discard_checkpoint(&mut self) {
        self.checkpoint = None;
        *self.last_checkpoint.lock() = None;
    }

    /// Creates the configuration directory of a kept workspace, and returns its path. None for other workspaces.
    pub(crate) fn cli_config(&self) -> Option<PathBuf> {
        let config = Sibling(&self.workspace).config().filter(|_| self.lock.is_some())?;
        // One that cannot be created is reported by the runtime, which needs it.
        let _ = std::fs::create_dir_all(&config);
        config.symlink_metadata().ok().filter(std::fs::Metadata::is_dir)?;
        Some(config)
    }

    /// Returns objects of the repository that no program of the attempt may write, if the clone borrows any.
    pub(crate) fn objects(&self) -> Option<PathBuf> {
        self.borrowed.as_ref().map(|borrowed| borrowed.path.join("objects"))
    }

    /// Whether the workspace is still there once the attempt has succeeded.
    pub(crate) fn outlives_success(&self) -> bool {
        self.cleanup != WorkspaceCleanup::OnSuccess && !self.workspace.starts_with(&self.own)
    }

    /// Returns the directory of this attempt alone, of which its programs may open no more than scratch directory and workspace.
    pub(crate) fn own(&self) -> &Path {
        &self.own
    }

    /// Returns what becomes of the workspace, as `WorkspaceCleanup`.
    pub(crate) fn cleanup(&self) -> i32 {
        self.cleanup.into()
    }

    /// Whether others may work in the directory meanwhile.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.in_place, Some((_, Lock::Shared)))
    }

    /// Whether their disk takes files, found out where no program of the attempt may write.
    pub(crate) async fn probe(&self) -> io::Result<()> {
        probe_in_time(self.own.clone()).await
    }

    /// Removes the directories that do not outlive the attempt: moves them away, and deletes them in the background, so
    /// that a large one does not delay the result.
    pub(crate) fn clear(self, succeeded: bool) {
        if let Some(lock) = &self.lock {
            last_use::note(lock);
        }
        if self.cleanup == WorkspaceCleanup::OnSuccess && succeeded {
            remove::in_background(&self.workspace, &self.trash);
            let _ = std::fs::remove_file(Sibling(&self.workspace).lock());
        }
        // Contains a fresh workspace that is always removed.
        remove::in_background(&self.own, &self.trash);
    }
}
