//! One process per database: the engine keeps in memory what only its own writes may change. SQLite's
//! own locks last a transaction; this one lasts as long as the store is open, and ends with the process.

use std::fs::{File, TryLockError};
use std::path::Path;

use rota_store::Error;

/// Held while the database is open.
#[derive(Debug)]
pub(crate) struct Lock {
    // The file stays: removing it would let two processes lock two files of one name.
    _file: File,
}

impl Lock {
    pub(crate) fn take(database: &Path) -> Result<Self, Error> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| Error::Unavailable {
            message: format!("the lock file {} cannot be opened: {error}", path.display()),
            hint: "check that its folder exists and may be written to",
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Unavailable {
                message: format!("the database {} is in use by another process", database.display()),
                hint: "end the other process, or use another data folder",
            }),
            Err(TryLockError::Error(error)) => Err(Error::Unavailable {
                message: format!("the lock file {} cannot be locked: {error}", path.display()),
                hint: "use a data folder on a local disk",
            }),
        }
    }
}
