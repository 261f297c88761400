//! Workspaces and scratch directories of attempts. Creates them, clones into them, and removes them.
//! Names from outside never become paths unchecked.

mod begun;
mod dirs;
mod in_place;
mod kept_by;
mod last_checkpoint;
mod left;
mod left_file;
mod setup_cache;
mod sweep;
mod turn;

use std::fs::{self, DirBuilder, File, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rota_proto::v1::{Failure, FailureClass, WorkspaceCleanup, WorkspaceMode};
use rota_proto::worker::v1::Assign;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::files::{LOCK_INTERVAL, last_use, remove, unlocked};
use crate::git::{Cloning, GitError};
use crate::layout::{Own, Scratch, Sibling, State};
use crate::report::failure;
use crate::supervise::{Group, Stop};
use begun::Begun;
pub(crate) use dirs::AttemptDirs;
use kept_by::KeptBy;
pub(crate) use last_checkpoint::LastCheckpoint;
pub(crate) use left::{remove_temporary, remove_unneeded};
pub(crate) use left_file::Left;
pub(crate) use setup_cache::SetupCache;
pub(crate) use sweep::remove_unfinished;
pub use sweep::{Unused, remove_unused, unused};
use turn::{hold_kept, in_turn};

/// Time for an earlier process of a worker to end, and then for the programs of a killed one, which their supervisors kill after 4
/// seconds.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(30);

/// Directories of a worker, whose name is unique within its namespace only, as is a task's id. [`State`] has the places.
#[derive(Debug)]
pub(crate) struct Root {
    state: PathBuf,
    attempts: PathBuf,
    /// Directory of attempts in earlier versions, in which nothing is created any more.
    legacy: PathBuf,
    /// What is removed in the background.
    trash: PathBuf,
    /// Locked by the supervisors of this worker's programs.
    supervisors: PathBuf,
    /// Locked as long as this worker lives; none while another process of its name has it, and on file systems without locks.
    owner: Mutex<Option<File>>,
}

/// Reason why no directories were prepared.
#[derive(Debug)]
pub(crate) enum PrepareError {
    /// Reported as the attempt's failure.
    Failed(Failure),
    /// An end was requested meanwhile.
    Stopped,
}

impl From<GitError> for PrepareError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Failed { failure, .. } => Self::Failed(failure),
            GitError::Stopped => Self::Stopped,
        }
    }
}

impl From<io::Error> for PrepareError {
    fn from(error: io::Error) -> Self {
        Self::Failed(failure(FailureClass::Environment, format!("failed to create the workspace: {error}")))
    }
}

impl Root {
    /// Creates the directories, accessible to this user alone.
    ///
    /// `supervisors` is the file that its supervisors lock, by default one next to its directory.
    pub(crate) fn open(
        state: PathBuf,
        namespace: &str,
        worker: &str,
        supervisors: Option<PathBuf>,
    ) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&state)?;
        // Programs are confined to paths without links.
        let state = state.canonicalize()?;
        let found = state.metadata()?;
        // One that an attempt has opened, which nothing keeps from that.
        if found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 != 0 {
            match fs::set_permissions(&state, Permissions::from_mode(0o700)) {
                Ok(()) => tracing::info!(path = %state.display(), "closed the directory to other users"),
                // Some file systems have fixed modes.
                Err(error) => {
                    tracing::warn!(path = %state.display(), %error, "other users can open the directory");
                }
            }
        }
        let places = State(&state);
        let (attempts, legacy) = (places.attempts(namespace, worker), places.legacy(worker));
        let trash = places.trash();
        for directory in [&attempts, &places.all_fresh(), &places.all_kept(), &trash] {
            builder.create(directory)?;
        }
        let default = || Sibling(&attempts).supervisors();
        let supervisors = supervisors.unwrap_or_else(default);
        let root = Self { state, attempts, legacy, trash, supervisors, owner: Mutex::default() };
        // The start of the worker waits for it, and reports errors.
        let _ = root.hold();
        Ok(root)
    }

    /// Returns the directory for spill files.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Takes this worker's directory. Returns false if another process of its name has it.
    fn hold(&self) -> io::Result<bool> {
        let mut owner = self.owner.lock();
        if owner.is_none() {
            *owner = sweep::hold(&self.attempts, &self.supervisors)?;
        }
        Ok(owner.is_some())
    }

    /// Takes this worker's directory once an earlier process of its name has ended. Returns false if that has not ended in time, and
    /// the error if the directory could not be locked until then.
    pub(crate) async fn earlier_process_ended(&self) -> io::Result<bool> {
        let start = Instant::now();
        loop {
            let held = self.hold();
            match &held {
                Ok(true) => return Ok(true),
                Err(error) if sweep::has_no_locks(error) => {
                    tracing::warn!(%error, "other processes of this worker are not kept away");
                    return Ok(true);
                }
                _ if start.elapsed() >= PREDECESSOR_TIMEOUT => return held,
                _ => tokio::time::sleep(LOCK_INTERVAL).await,
            }
        }
    }

    /// Waits until no program of an earlier process of this worker that was killed is left.
    pub(crate) async fn supervisors_ended(&self) {
        if tokio::time::timeout(PREDECESSOR_TIMEOUT, unlocked(&self.supervisors)).await.is_err() {
            tracing::warn!("programs of an earlier process of this worker still run");
        }
    }

    /// Lets the supervisors of the current attempt show that they run, to later processes of this worker.
    pub(crate) fn show_supervisors(&self) {
        Group::lock_current(self.supervisors.clone());
    }

    /// Removes leftovers of an earlier process of this worker that was killed, except what attempts have left to be stored. They are
    /// moved away before this returns.
    pub(crate) fn sweep(&self) {
        remove::in_background(&self.legacy, &self.trash);
        left::remove_others(&self.attempts, &self.trash);
        remove::empty_in_background(self.trash.clone());
    }

    /// Removes what killed workers have left behind, and workspaces that were not used for the time `keep`.
    /// Blocks.
    pub(crate) fn sweep_others(&self, keep: Duration) {
        sweep::abandoned(&State(&self.state).running(), &self.trash);
        sweep::remove_unfinished(&self.state);
        let Some(before) = sweep::limit(keep) else { return };
        for removed in sweep::remove_unused(&self.state, before) {
            tracing::info!(path = %removed.path.display(), "removed a workspace that was not used for long");
        }
    }

    /// Returns the attempt's own directory.
    pub(crate) fn own(&self, assign: &Assign) -> PathBuf {
        self.attempts.join(format!("{}.{}", assign.task_id, assign.fence))
    }

    /// Returns the attempt's scratch directory.
    pub(crate) fn scratch(&self, assign: &Assign) -> PathBuf {
        Own(&self.own(assign)).scratch()
    }

    /// Returns the directories that the clone of an attempt's repository may write, each of which it cannot replace: where it
    /// may be made, its home, and its temporary files.
    pub(crate) fn clone_directories(&self, assign: &Assign) -> Vec<PathBuf> {
        let workspace = assign.spec.as_ref().and_then(|spec| spec.workspace.as_ref());
        let name = workspace.map(|workspace| &workspace.path).filter(|name| !name.is_empty());
        let name = name.unwrap_or(&assign.task_id);
        let (own, scratch) = (self.own(assign), self.scratch(assign));
        let mut directories = vec![Scratch(&scratch).home(), Scratch(&scratch).tmp(), Own(&own).work()];
        // Others are rejected before anything is cloned.
        if is_name(&assign.namespace) && is_name(name) {
            let id = format!("{}.{}", assign.task_id, assign.fence);
            let state = State(&self.state);
            directories.push(state.fresh(&assign.namespace, &id));
            directories.push(Sibling(&state.kept(&assign.namespace).join(name)).unfinished());
        }
        directories
    }

    /// Returns the name of the kept workspace of an attempt, or its directory, if another attempt uses it.
    pub(crate) fn busy_workspace<'a>(&self, assign: &'a Assign) -> Option<&'a str> {
        let wanted = assign.spec.as_ref()?.workspace.as_ref()?;
        if wanted.mode() == WorkspaceMode::InPlace {
            return in_place::is_busy(wanted).then_some(wanted.path.as_str());
        }
        let name = if wanted.path.is_empty() { &assign.task_id } else { &wanted.path };
        if wanted.mode() != WorkspaceMode::Keep || !is_name(name) || !is_name(&assign.namespace) {
            return None;
        }
        let lock = Sibling(&State(&self.state).kept(&assign.namespace).join(name)).lock();
        let is_held = File::open(lock).is_ok_and(|file| file.try_lock().is_err());
        is_held.then_some(name.as_str())
    }

    /// Creates the directories of an attempt, with a clone if it has a repository. Awaits `has_turn` once no other attempt uses them.
    pub(crate) async fn prepare(
        &self,
        assign: &Assign,
        cloning: Option<&Cloning>,
        stop: &mut watch::Receiver<Option<Stop>>,
        has_turn: impl Future<Output = ()>,
    ) -> Result<AttemptDirs, PrepareError> {
        let own = self.own(assign);
        let made = self.make(assign, own.clone(), cloning, stop, has_turn).await;
        if made.is_err() {
            remove::all(own).await;
        }
        made
    }

    async fn make(
        &self,
        assign: &Assign,
        own: PathBuf,
        cloning: Option<&Cloning>,
        stop: &mut watch::Receiver<Option<Stop>>,
        has_turn: impl Future<Output = ()>,
    ) -> Result<AttemptDirs, PrepareError> {
        let wanted = assign.spec.as_ref().and_then(|spec| spec.workspace.clone()).unwrap_or_default();
        let scratch = Own(&own).scratch();
        for directory in [Scratch(&scratch).home(), Scratch(&scratch).tmp()] {
            tokio::fs::create_dir_all(directory).await?;
        }
        let id = format!("{}.{}", assign.task_id, assign.fence);
        let cleanup = wanted.cleanup();
        let (mut lock, mut held, mut base, mut borrowed, mut included) = (None, None, None, None, None);
        let (mut kept_by, mut set_aside) = (None, None);
        let mut made = wanted.mode() != WorkspaceMode::InPlace;
        let mut fresh = made;
        if let Some(source) = &wanted.git {
            in_place::checked_source(source, &self.state).await?;
        }
        let workspace = match wanted.mode() {
            WorkspaceMode::InPlace => {
                let directory = in_place::directory(&wanted.path, &self.state).await?;
                held = in_turn(&wanted.path, in_place::hold(&directory, &wanted, &self.state, stop)).await?;
                has_turn.await;
                directory
            }
            WorkspaceMode::Keep => {
                let name = if wanted.path.is_empty() { &assign.task_id } else { &wanted.path };
                let kept = State(&self.state).kept(checked(&assign.namespace)?);
                tokio::fs::create_dir_all(&kept).await?;
                let workspace = kept.join(checked(name)?);
                lock = Some(in_turn(name, hold_kept(&workspace, stop)).await?);
                has_turn.await;
                // Its settings and transcripts would be of others.
                let newest = assign.checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.attempt);
                kept_by = KeptBy::read(&workspace);
                if kept_by.as_ref().is_some_and(|kept_by| kept_by.is_behind(&assign.task_id, newest))
                    && tokio::fs::try_exists(&workspace).await?
                {
                    set_aside = Some(kept_by::set_aside(&workspace).await?);
                }
                made = !tokio::fs::try_exists(&workspace).await?;
                fresh = made
                    && Sibling(&workspace).config().is_none_or(|config| config.symlink_metadata().is_err());
                if made {
                    // All or nothing: an interrupted clone must not pass for a workspace.
                    let unfinished = Sibling(&workspace).unfinished();
                    remove::all(unfinished.clone()).await;
                    tokio::fs::create_dir(&unfinished).await?;
                    let begun = Begun::new(&unfinished, &self.trash);
                    if let Some(cloning) = cloning {
                        cloning.into(&unfinished, false, stop).await?;
                        included = cloning.include(&unfinished, stop).await?;
                    }
                    // What an earlier attempt has left is still to be restored.
                    kept_by = None;
                    KeptBy::new(&assign.task_id, assign.attempt, false).write(&workspace)?;
                    tokio::fs::rename(&unfinished, &workspace).await?;
                    begun.complete();
                }
                workspace
            }
            WorkspaceMode::Unspecified | WorkspaceMode::Fresh => {
                let workspace = match cleanup {
                    WorkspaceCleanup::Unspecified | WorkspaceCleanup::Always => Own(&own).work(),
                    _ => State(&self.state).fresh(checked(&assign.namespace)?, &id),
                };
                tokio::fs::create_dir_all(&workspace).await?;
                let begun = (!workspace.starts_with(&own)).then(|| Begun::new(&workspace, &self.trash));
                if let Some(cloning) = cloning {
                    let made = cloning.into(&workspace, workspace.starts_with(&own), stop).await?;
                    (base, borrowed) = (Some(made.0), made.1);
                    included = cloning.include(&workspace, stop).await?;
                }
                if let Some(begun) = begun {
                    begun.complete();
                    last_use::note_unlocked(&workspace);
                }
                workspace
            }
        };
        let cleanup = match wanted.mode() {
            WorkspaceMode::Keep | WorkspaceMode::InPlace => WorkspaceCleanup::Never,
            _ => cleanup,
        };
        let repository = cloning.map(|cloning| cloning.git(&workspace, &Scratch(&scratch).home())).zip(base);
        let trash = self.trash.clone();
        Ok(AttemptDirs {
            workspace,
            scratch,
            own,
            trash,
            cleanup,
            lock,
            in_place: held,
            included,
            repository,
            delivery: None,
            made,
            fresh,
            own_work: kept_by.is_some_and(|kept_by: KeptBy| kept_by.is_of(&assign.task_id)),
            set_aside,
            undelivered: None,
            started: false,
            checkpoint: None,
            last_checkpoint: Default::default(),
            has_list: Default::default(),
            copying: Default::default(),
            borrowed,
        })
    }
}

/// Checks a name that becomes one component of a path: not empty, not hidden, no way out.
fn checked(name: &str) -> Result<&str, PrepareError> {
    if is_name(name) {
        return Ok(name);
    }
    let text = format!(
        "invalid workspace name {:?}: use at most 128 letters, digits, `-`, `_` and `.`, not starting with `.`",
        name.chars().take(64).collect::<String>()
    );
    Err(PrepareError::Failed(failure(FailureClass::Invalid, text)))
}

/// Whether a name is safe as a component of a path.
pub(crate) fn is_name(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fine)
}

#[cfg(test)]
mod tests;
