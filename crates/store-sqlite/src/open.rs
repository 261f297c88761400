//! Opening of a database file: lock, integrity check, migration, settings; and the errors of all of these.

use std::path::Path;
use std::time::Duration;

use rota_store::Error;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use crate::disk::{self, Reserve};
use crate::{Readers, Writer, lock, migrate, sql, writer};

/// Read connections. More would wait for processors, not for the disk.
const READER_COUNT: usize = 3;
/// Space that opening needs at most, unless it migrates: the log, its index, and some pages.
const OPENING_BYTES: u64 = 1024 * 1024;
/// Size up to which a file is checked completely on opening.
const MAX_CHECKED_BYTES: u64 = 256 * 1024 * 1024;
/// Size from which on a log takes long enough to copy that opening reports it.
const LONG_LOG: u64 = 64 * 1024 * 1024;

const DISK_FULL_HINT: &str = "free some space or enlarge the volume; no acknowledged write is lost";

/// Opens the connections. `free` returns the free bytes of the volume with a path, if known.
pub(crate) fn open(path: &Path, free: fn(&Path) -> Option<u64>) -> Result<(Writer, Readers), Error> {
    let lock = lock::acquire(path)?;
    let mut reserve = Reserve::of(path);
    let (connection, epoch) = match connect(path, &mut reserve, free) {
        // Opening writes: on a full volume, with what was reserved for it.
        Err(error) if is_short_of_space(free(path), 0) && reserve.release() => {
            tracing::warn!(%error, "the volume is full; using the reserve");
            connect(path, &mut reserve, free)?
        }
        connected => connected?,
    };
    let readers = (0..READER_COUNT).map(|_| reader(path)).collect::<Result<_, _>>()?;
    reserve.ensure();
    Ok((Writer::new(connection, epoch, lock, reserve), Readers::new(readers, path)))
}

/// Opens the write connection: checks and migrates the database, copies the log into it, and takes it over. `free` is as for `open`.
pub(crate) fn connect(
    path: &Path,
    reserve: &mut Reserve,
    free: fn(&Path) -> Option<u64>,
) -> Result<(Connection, i64), Error> {
    let mut connection = Connection::open(path).map_err(|error| explain(&error))?;
    settings(&connection).map_err(|error| explain(&error))?;
    check(&connection, path)?;
    // The writer checkpoints after its commits.
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(|error| explain(&error))?;
    migrate::to_latest(&mut connection, path, free)?;
    copy_kept_log(&connection, path, reserve, free)?;
    let epoch = writer::take_over(&connection)?;
    Ok((connection, epoch))
}

/// Copies the log that an earlier process has left into the database, and empties it. After a lost sync, its end may be in memory only, and
/// no later sync writes it: nothing should follow it there. Not on a volume on which the copy could take the room of what follows.
fn copy_kept_log(
    connection: &Connection,
    path: &Path,
    reserve: &mut Reserve,
    free: fn(&Path) -> Option<u64>,
) -> Result<(), Error> {
    let log = log_bytes(path);
    // Of the pages in the log, most are in the file already.
    let growth = database_bytes(connection)?.saturating_sub(file_bytes(path));
    let (reserved, mut room) = (reserve.bytes(), free(path));
    let room_with_reserve = room.map(|room| room.saturating_add(reserved));
    // Not where the copy would not fit either: results need the reserve, too.
    let is_released = log > 0
        && is_short_of_space(room, growth)
        && !is_short_of_space(room_with_reserve, growth)
        && reserve.release();
    if is_released {
        tracing::warn!(log, free = room, "the volume has no room to copy the log; using the reserve");
        room = free(path);
    }
    if !is_short_of_space(room, growth) {
        if log >= LONG_LOG {
            tracing::info!(log, "copying the log into the database, for which the start waits");
        }
        writer::copy_log(connection, sql::TRUNCATE_LOG)?;
    }
    let log = log_bytes(path);
    // The copy has given the space of the log back.
    if is_released && !is_short_of_space(free(path), reserved) {
        reserve.take(reserved);
    }
    if log > 0 {
        tracing::warn!(
            log,
            free = room,
            "the log could not be copied into the database and emptied: if an earlier sync of it was lost, a loss of power can take \
             later commits; make room on the volume, end other programs that use the database, and restart"
        );
    }
    Ok(())
}

/// How long a statement waits for another connection.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether so much free space, if known, is less than opening may need, with so many bytes by which the database file grows.
fn is_short_of_space(free: Option<u64>, growth: u64) -> bool {
    free.is_some_and(|free| free < OPENING_BYTES.saturating_add(growth))
}

/// Returns the size of a database with its pages in the log.
pub(crate) fn database_bytes(connection: &Connection) -> Result<u64, Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let pages = number("page_count").and_then(|pages| Ok(pages.saturating_mul(number("page_size")?)));
    Ok(u64::try_from(pages.map_err(|error| explain(&error))?).unwrap_or(0))
}

/// Returns the length of the log, which is 0 once all of it was copied into the database.
fn log_bytes(path: &Path) -> u64 {
    file_bytes(&disk::sibling(path, "-wal"))
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(sql::COUNT);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "mmap_size", 268_435_456)
}

/// Checks the integrity before anything is written. A large file would take minutes, which a start must not; damage in
/// it is reported when it is read.
fn check(connection: &Connection, path: &Path) -> Result<(), Error> {
    if std::fs::metadata(path).is_ok_and(|data| data.len() > MAX_CHECKED_BYTES) {
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
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(sql::COUNT);
        connection.pragma_update(None, "query_only", true)
    };
    set().map_err(|error| explain(&error))?;
    Ok(connection)
}

/// Whether it is unknown after a failed commit if it reached the disk: after a failed sync the operating system may
/// drop the unwritten pages and report success for the next sync.
pub(crate) fn is_lost_sync(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        matches!(error.extended_code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    })
}

/// Whether a write failed for lack of space.
pub(crate) fn is_disk_full(error: &Error) -> bool {
    matches!(error, Error::Unavailable { hint, .. } if *hint == DISK_FULL_HINT)
}

/// Translates an SQLite error into a cause and a remedy.
pub(crate) fn explain(error: &rusqlite::Error) -> Error {
    let (message, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ("the disk is full", DISK_FULL_HINT),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            "the database file is locked by another process",
            "end the other process, or use another data directory",
        ),
        Some(ErrorCode::CannotOpen) => {
            ("the database file cannot be opened", "check that its directory exists and is writable")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            ("the database file is not writable", "check its owner and permissions")
        }
        Some(ErrorCode::SystemIoFailure) if is_lost_sync(error) => return Error::LostSync(error.to_string()),
        Some(ErrorCode::SystemIoFailure) => {
            ("the disk failed while the database was read or written", "check the disk and the system log")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            return Error::Corrupt(format!("the database file is damaged or not a database: {error}"));
        }
        _ => return Error::Unavailable { message: error.to_string(), hint: "see the log" },
    };
    Error::Unavailable { message: format!("{message} ({error})"), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_sync_loses_sync() {
        let explained = |code| explain(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC] {
            let error = explained(code);
            assert!(matches!(error, Error::LostSync(_)) && error.is_fatal(), "{error:?}");
        }
        for code in [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_FULL] {
            let error = explained(code);
            assert!(matches!(error, Error::Unavailable { .. }) && !error.is_fatal(), "{error:?}");
        }
    }
}
