//! Existing directories that attempts work in. An attempt has its directory for itself, unless its task shares it: it holds a lock on
//! the directory, which all workers of the machine see, and which writes nothing there.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rota_proto::v1::{FailureClass, Workspace};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::lock::{Lock, acquire, locked, try_acquire};
use super::{PrepareError, is_within};
use crate::runtimes::{Stop, failure};
use crate::supervise::Group;

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
    if fits {
        return Ok(path);
    }
    let text = format!("workspace {} is not an absolute path of a directory on this worker", path.display());
    Err(PrepareError::Failed(failure(FailureClass::Invalid, text)))
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
    let folder = state.join("in-place");
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
