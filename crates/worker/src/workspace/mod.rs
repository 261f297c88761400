//! Where attempts work: a fresh directory, one that is kept, or one that exists. Makes it, fills it
//! from git where asked for, and clears it away. Names from outside never become paths unchecked.

mod git;
mod remove;

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_proto::v1::{Failure, FailureClass, WorkspaceCleanup, WorkspaceMode};
use rota_proto::worker::v1::Assign;
use rota_telemetry::redact::Redactor;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::runtimes::{Environment, Stop, failure, stopped};

/// A worker's directories:
/// `attempts/{worker}/{task}.{fence}/{scratch,work}` goes with its attempt or with the next start,
/// `workspaces/{namespace}/{task}.{fence}` is a fresh workspace that shall stay,
/// `kept/{namespace}/{name}` is shared by attempts that go on from one another.
#[derive(Debug)]
pub(crate) struct Root {
    state: PathBuf,
    attempts: PathBuf,
}

/// The directories of one attempt.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) workspace: PathBuf,
    pub(crate) scratch: PathBuf,
    own: PathBuf,
    cleanup: WorkspaceCleanup,
    /// Others wait for a kept workspace as long as this is open.
    _lock: Option<File>,
}

/// Why there is no place to work.
#[derive(Debug)]
pub(crate) enum NoPlace {
    /// This.
    Failed(Failure),
    /// The attempt shall end before it began.
    Stopped,
}

impl From<io::Error> for NoPlace {
    fn from(error: io::Error) -> Self {
        Self::Failed(failure(FailureClass::Environment, format!("the workspace cannot be made: {error}")))
    }
}

impl Root {
    /// Makes the directories, each for this user alone: what attempts leave is nobody else's to read.
    pub(crate) fn open(state: PathBuf, worker: &str) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let attempts = state.join("attempts").join(worker);
        for directory in [&attempts, &state.join("workspaces"), &state.join("kept")] {
            builder.create(directory)?;
        }
        Ok(Self { state, attempts })
    }

    /// Where spilled events may go.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Removes what an earlier process of this worker left when it was killed.
    pub(crate) async fn sweep(&self) {
        remove::all(self.attempts.clone()).await;
    }

    /// The attempt's own directory.
    pub(crate) fn own(&self, assign: &Assign) -> PathBuf {
        self.attempts.join(format!("{}.{}", assign.task_id, assign.fence))
    }

    /// The attempt's scratch directory.
    pub(crate) fn scratch(&self, assign: &Assign) -> PathBuf {
        self.own(assign).join("scratch")
    }

    /// Makes the directories of an attempt. `environment` is the attempt's own, for git, and `redactor` for what
    /// git says.
    pub(crate) async fn prepare(
        &self,
        assign: &Assign,
        environment: &Environment,
        redactor: &Redactor,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Place, NoPlace> {
        let own = self.own(assign);
        let made = self.make(assign, own.clone(), environment, redactor, stop).await;
        if made.is_err() {
            remove::all(own).await;
        }
        made
    }

    async fn make(
        &self,
        assign: &Assign,
        own: PathBuf,
        environment: &Environment,
        redactor: &Redactor,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Place, NoPlace> {
        let wanted = assign.spec.as_ref().and_then(|spec| spec.workspace.clone()).unwrap_or_default();
        let scratch = own.join("scratch");
        for directory in ["home", "tmp"] {
            tokio::fs::create_dir_all(scratch.join(directory)).await?;
        }
        let id = format!("{}.{}", assign.task_id, assign.fence);
        let cleanup = wanted.cleanup();
        let mut lock = None;
        let workspace = match wanted.mode() {
            WorkspaceMode::InPlace => in_place(&wanted.path).await?,
            WorkspaceMode::Keep => {
                let name = if wanted.path.is_empty() { &assign.task_id } else { &wanted.path };
                let kept = self.state.join("kept").join(checked(&assign.namespace)?);
                tokio::fs::create_dir_all(&kept).await?;
                let workspace = kept.join(checked(name)?);
                lock = Some(locked(&kept.join(format!(".{name}.lock")), stop).await?);
                if !tokio::fs::try_exists(&workspace).await? {
                    // Whole or not at all: a clone that was cut off is not taken for a workspace.
                    let unfinished = kept.join(format!(".{name}.unfinished"));
                    remove::all(unfinished.clone()).await;
                    tokio::fs::create_dir(&unfinished).await?;
                    if let Some(source) = &wanted.git {
                        git::clone(source, &unfinished, environment, redactor, stop).await?;
                    }
                    tokio::fs::rename(&unfinished, &workspace).await?;
                }
                workspace
            }
            WorkspaceMode::Unspecified | WorkspaceMode::Fresh => {
                let workspace = match cleanup {
                    WorkspaceCleanup::Unspecified | WorkspaceCleanup::Always => own.join("work"),
                    _ => self.state.join("workspaces").join(checked(&assign.namespace)?).join(id),
                };
                tokio::fs::create_dir_all(&workspace).await?;
                if let Some(source) = &wanted.git {
                    git::clone(source, &workspace, environment, redactor, stop).await?;
                }
                workspace
            }
        };
        let cleanup = match wanted.mode() {
            WorkspaceMode::Keep | WorkspaceMode::InPlace => WorkspaceCleanup::Never,
            _ => cleanup,
        };
        Ok(Place { workspace, scratch, own, cleanup, _lock: lock })
    }
}

impl Place {
    /// Clears away what does not stay.
    pub(crate) async fn clear(self, succeeded: bool) {
        if self.cleanup == WorkspaceCleanup::OnSuccess && succeeded {
            remove::all(self.workspace).await;
        }
        // A fresh workspace that is always removed lies in here.
        remove::all(self.own).await;
    }
}

/// A name as one part of a path: never empty, hidden, or a way out.
fn checked(name: &str) -> Result<&str, NoPlace> {
    if is_name(name) {
        return Ok(name);
    }
    let text = format!(
        "{:?} cannot name a workspace: use at most 128 letters, digits, `-`, `_` and `.`, and no `.` first",
        name.chars().take(64).collect::<String>()
    );
    Err(NoPlace::Failed(failure(FailureClass::Invalid, text)))
}

/// Whether a name can be a part of a path.
pub(crate) fn is_name(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fine)
}

async fn in_place(path: &str) -> Result<PathBuf, NoPlace> {
    let path = PathBuf::from(path);
    let fits = path.is_absolute() && tokio::fs::metadata(&path).await.is_ok_and(|found| found.is_dir());
    if fits {
        return Ok(path);
    }
    let text =
        format!("the workspace {} is not the absolute path of a directory on this worker", path.display());
    Err(NoPlace::Failed(failure(FailureClass::Invalid, text)))
}

/// Waits until no other attempt, of this process or another, works in a kept workspace.
async fn locked(path: &Path, stop: &mut watch::Receiver<Option<Stop>>) -> Result<File, NoPlace> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) => tokio::select! {
                () = sleep(Duration::from_millis(100)) => {}
                _ = stopped(stop) => return Err(NoPlace::Stopped),
            },
        }
    }
}

#[cfg(test)]
mod tests;
