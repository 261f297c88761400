//! Opening a database file: lock, check, migrate, settings; and what people are told when it fails.

use std::path::Path;
use std::time::Duration;

use rota_store::Error;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use rusqlite_migration::{M, Migrations};

use crate::lock::Lock;
use crate::{Readers, Writer};

/// Readers beside the writer. More would wait for processors, not for the disk.
const READERS: usize = 3;
/// WAL pages after which the writer checkpoints, 4 KiB each: seldom enough to stay off the usual commit.
const CHECKPOINT_PAGES: i64 = 4000;

/// Files up to this size are checked as a whole when they are opened.
const CHECKED_BYTES: u64 = 256 * 1024 * 1024;

pub(crate) fn migrations() -> Migrations<'static> {
    Migrations::new(vec![
        M::up(include_str!("migrations/001_begin.sql")),
        M::up(include_str!("migrations/002_what_goes.sql")),
        M::up(include_str!("migrations/003_pending.sql")),
    ])
}

pub(crate) fn open(path: &Path) -> Result<(Writer, Readers), Error> {
    let lock = Lock::take(path)?;
    let mut connection = Connection::open(path).map_err(|error| explain(&error))?;
    settings(&connection).map_err(|error| explain(&error))?;
    check(&connection, path)?;
    migrations().to_latest(&mut connection).map_err(|error| newer(&error))?;
    connection
        .pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
        .map_err(|error| explain(&error))?;
    let readers = (0..READERS).map(|_| reader(path)).collect::<Result<_, _>>()?;
    Ok((Writer::new(connection, lock)?, Readers::new(readers)))
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "mmap_size", 268_435_456)
}

/// Looks for damage before anything is written. A large file would take minutes, and a start must not; what is
/// damaged in it is told when it is met.
fn check(connection: &Connection, path: &Path) -> Result<(), Error> {
    if std::fs::metadata(path).is_ok_and(|data| data.len() > CHECKED_BYTES) {
        return Ok(());
    }
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| explain(&error))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(Error::Corrupt(format!("{}: {verdict}; restore it from a backup", path.display())))
}

fn reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| explain(&error))?;
    let set = || {
        connection.busy_timeout(Duration::from_secs(2))?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.pragma_update(None, "query_only", true)
    };
    set().map_err(|error| explain(&error))?;
    Ok(connection)
}

fn newer(error: &rusqlite_migration::Error) -> Error {
    match error {
        rusqlite_migration::Error::MigrationDefinition(
            rusqlite_migration::MigrationDefinitionError::DatabaseTooFarAhead,
        ) => Error::Unavailable {
            message: "its schema was made by a newer version of Rota".to_owned(),
            hint: "run that version or a later one, or restore a backup from before the upgrade",
        },
        rusqlite_migration::Error::RusqliteError { err, .. } => explain(err),
        other => Error::Corrupt(other.to_string()),
    }
}

/// Whether a commit failed in such a way that nobody knows whether it is on the disk: after a failed sync the system
/// may forget what it could not write, and tell the next sync that all is well.
pub(crate) fn is_lost_sync(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        matches!(error.extended_code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    })
}

/// What SQLite says, in the words of whoever has to act on it.
pub(crate) fn explain(error: &rusqlite::Error) -> Error {
    let (message, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            ("the disk is full", "free some space; nothing that was answered is lost")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            "the database file is locked by another process",
            "end the other process, or use another data folder",
        ),
        Some(ErrorCode::CannotOpen) => {
            ("the database file cannot be opened", "check that its folder exists and may be written to")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            ("the database file may not be written to", "check its owner and permissions")
        }
        Some(ErrorCode::SystemIoFailure) if is_lost_sync(error) => (
            "the disk failed while a commit was made durable, and nothing more is written",
            "check the disk, then start Rota again: it finds out what was kept",
        ),
        Some(ErrorCode::SystemIoFailure) => {
            ("the disk failed while the database was read or written", "check the disk and the system's log")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            return Error::Corrupt(format!("the database file is damaged or is no database: {error}"));
        }
        _ => return Error::Unavailable { message: error.to_string(), hint: "see the log" },
    };
    Error::Unavailable { message: format!("{message} ({error})"), hint }
}
