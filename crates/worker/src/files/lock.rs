//! Locks between processes, by files. A process that ends releases its own.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::supervise::{Stop, stopped};

/// Interval between attempts to take a lock; the kernel does not notify.
pub(crate) const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until no process holds a lock on a file.
pub(crate) async fn unlocked(path: &Path) {
    while let Ok(file) = File::options().write(true).open(path)
        && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    {
        sleep(LOCK_INTERVAL).await;
    }
}

/// Whether others may hold a lock too.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lock {
    Shared,
    Exclusive,
}

/// Waits for the lock on a file, which attempts of other processes may hold. None if an end was requested meanwhile.
pub(crate) async fn locked(
    path: &Path,
    kind: Lock,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> io::Result<Option<File>> {
    acquire(File::options().create(true).truncate(false).write(true).open(path)?, kind, stop).await
}

/// Takes the lock on an open file or directory, if no other attempt is in the way.
pub(crate) fn try_acquire(file: &File, kind: Lock) -> Result<(), TryLockError> {
    match kind {
        Lock::Shared => file.try_lock_shared(),
        Lock::Exclusive => file.try_lock(),
    }
}

/// Waits for the lock on an open file or directory.
pub(crate) async fn acquire(
    file: File,
    kind: Lock,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> io::Result<Option<File>> {
    loop {
        match try_acquire(&file, kind) {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => tokio::select! {
                () = sleep(LOCK_INTERVAL) => {}
                _ = stopped(stop) => return Ok(None),
            },
        }
    }
}
