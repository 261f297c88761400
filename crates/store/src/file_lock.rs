//! Exclusive lock on a file, held for as long as a process needs it. Knows nothing of what it protects.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Exclusive lock on a file, released when dropped. The system releases it when the process exits for any reason.
#[derive(Debug)]
pub struct FileLock {
    // The file is never removed: two processes could then lock two files of the same name.
    file: File,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that was forked meanwhile and has not called exec yet holds
        // the same open file, and with it the lock (flock(2)).
        let _ = self.file.unlock();
    }
}

/// Failure to acquire a [`FileLock`].
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("locked by another process")]
    Held,
    /// The file cannot be opened or created.
    #[error("failed to open the lock file: {0}")]
    Open(#[source] io::Error),
    /// The file system does not support the lock.
    #[error("failed to lock the file: {0}")]
    Lock(#[source] io::Error),
}

impl FileLock {
    /// Locks a file, which is created if missing. Does not wait.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(LockError::Open)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            Err(TryLockError::Error(error)) => Err(LockError::Lock(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_releases_despite_inherited_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::acquire(&path).unwrap();
        // What a child process holds between fork and exec.
        let inherited = lock.file.try_clone().unwrap();
        assert!(matches!(FileLock::acquire(&path), Err(LockError::Held)));
        drop(lock);
        FileLock::acquire(&path).unwrap();
        drop(inherited);
    }
}
