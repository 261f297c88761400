//! Existing directories that attempts work in. An attempt has its directory for itself, unless its task shares it: it holds a lock on
//! the directory, which all workers of the machine see, and which writes nothing there.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rota_proto::v1::{FailureClass, GitSource, Workspace};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::PrepareError;
use crate::files::{Lock, acquire, locked, try_acquire};
use crate::layout::State;
use crate::report::failure;
use crate::supervise::{Group, Stop};

/// Whether a path leads into the worker's state, which has the workspaces of other tasks.
async fn is_within(path: &Path, state: &Path) -> bool {
    let (path, state) = (tokio::fs::canonicalize(path).await, tokio::fs::canonicalize(state).await);
    matches!((path, state), (Ok(path), Ok(state)) if path.starts_with(&state))
}

/// Checks that a repository on this machine is not a workspace of another task.
pub(super) async fn checked_source(source: &GitSource, state: &Path) -> Result<(), PrepareError> {
    let Some(path) = crate::git::local_path(&source.url) else { return Ok(()) };
    // A relative path would start in the attempt's own directory.
    if path.is_relative() || is_within(&path, state).await {
        let text = "the repository must not be a relative path or in the worker's state directory";
        return Err(PrepareError::Failed(failure(FailureClass::Invalid, text)));
    }
    Ok(())
}

fn kind(wanted: &Workspace) -> Lock {
    if wanted.shared { Lock::Shared } else { Lock::Exclusive }
}

/// Returns the directory, if it can be one of an attempt.
pub(super) async fn directory(path: &str, state: &Path) -> Result<PathBuf, PrepareError> {
    let path = PathBuf::from(path);
    let fits = path.is_absolute() && tokio::fs::metadata(&path).await.is_ok_and(|found| found.is_dir());
    if fits && is_within(&path, state).await {
        let text = format!("workspace {} is in the worker's state directory", path.display());
        return Err(PrepareError::Failed(failure(FailureClass::Invalid, text)));
    }
    if fits && let Some(link) = planted(&path) {
        let text = format!(
            "workspace {} is behind the link {}, which an attempt may have made",
            path.display(),
            link.display()
        );
        return Err(PrepareError::Failed(failure(FailureClass::Invalid, text)));
    }
    if fits {
        // Without links: what its attempts put in the place of a folder later leads nowhere.
        return Ok(tokio::fs::canonicalize(path).await?);
    }
    let text = format!("workspace {} is not an absolute path of a directory on this worker", path.display());
    Err(PrepareError::Failed(failure(FailureClass::Invalid, text)))
}

/// Returns a link on the way to a directory that is within a repository: attempts that work in it write all of the repository, and
/// those that follow would work wherever the link leads.
fn planted(path: &Path) -> Option<&Path> {
    let is_link = |path: &&Path| path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let is_within = |link: &&Path| {
        let folder = link.parent().and_then(|folder| folder.canonicalize().ok());
        folder.is_some_and(|folder| folder.ancestors().any(|folder| folder.join(".git").exists()))
    };
    path.ancestors().filter(is_link).find(is_within)
}

/// Whether an attempt has to wait for its directory.
pub(super) fn is_busy(wanted: &Workspace) -> bool {
    let Ok(directory) = File::open(&wanted.path) else { return false };
    matches!(try_acquire(&directory, kind(wanted)), Err(TryLockError::WouldBlock))
}

/// Waits for a directory. What is returned holds the lock; none on a file system without locks.
pub(super) async fn hold(
    path: &Path,
    wanted: &Workspace,
    state: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Option<(File, Lock)>, PrepareError> {
    let held = match acquire(File::open(path)?, kind(wanted), stop).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::Other) => {
            tracing::warn!(path = %path.display(), %error, "no lock on the directory of an attempt");
            return Ok(None);
        }
        held => held?.ok_or(PrepareError::Stopped)?,
    };
    // Programs of a killed worker may still work in it.
    let folder = State(state).in_place();
    tokio::fs::create_dir_all(&folder).await?;
    let name = format!("{:x}", Sha256::digest(path.canonicalize()?.as_os_str().as_encoded_bytes()));
    let [alone, sharing] = ["alone", "sharing"].map(|how| folder.join(format!("{name}.{how}")));
    let (own, others) = match kind(wanted) {
        Lock::Exclusive => (alone.clone(), vec![alone, sharing]),
        Lock::Shared => (sharing, vec![alone]),
    };
    for file in others {
        drop(locked(&file, Lock::Exclusive, stop).await?.ok_or(PrepareError::Stopped)?);
    }
    Group::lock_current(own);
    Ok(Some((held, kind(wanted))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn links_within_a_repository_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["repository/.git", "repository/src", "other/src", "state"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let found =
            async |path: &str| directory(root.join(path).to_str().unwrap(), &root.join("state")).await;
        symlink(root.join("repository"), root.join("link")).unwrap();
        // A link that the user has made, elsewhere.
        assert_eq!(found("link/src").await.unwrap(), root.join("repository/src"));
        std::fs::remove_dir(root.join("repository/src")).unwrap();
        symlink(root.join("other"), root.join("repository/src")).unwrap();
        for path in ["repository/src", "repository/src/src", "link/src"] {
            let Err(PrepareError::Failed(failed)) = found(path).await else { panic!("{path} is taken") };
            assert!(failed.message.contains("behind the link"), "{failed:?}");
        }
        // A file of a work tree, or a hidden one, is as good as a folder.
        std::fs::remove_dir(root.join("repository/.git")).unwrap();
        assert_eq!(found("repository/src").await.unwrap(), root.join("other"));
        std::fs::write(root.join("repository/.git"), "gitdir: x").unwrap();
        assert!(found("repository/src").await.is_err());
    }
}
