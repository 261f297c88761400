//! File lock: one process per database, since the engine keeps state in memory that only its own writes may change.
//! SQLite's own locks last for a transaction; this one lasts while the store is open, and ends with the process.

use std::path::Path;

use rota_store::{Error, FileLock, LockError};

use crate::disk;

/// Acquires the lock of a database, which is held while it is open.
pub(crate) fn acquire(database: &Path) -> Result<FileLock, Error> {
    let path = disk::sibling(database, ".lock");
    FileLock::acquire(&path).map_err(|error| match error {
        LockError::Open(error) => Error::Unavailable {
            message: format!("failed to open the lock file {}: {error}", path.display()),
            hint: "check that its directory exists and is writable",
        },
        LockError::Held => Error::Unavailable {
            message: format!("the database {} is in use by another process", database.display()),
            hint: "stop the other process, or use another data directory",
        },
        LockError::Lock(error) => Error::Unavailable {
            message: format!("failed to lock {}: {error}", path.display()),
            hint: "use a data directory on a local disk",
        },
    })
}
