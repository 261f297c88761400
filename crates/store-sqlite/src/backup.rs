//! Consistent copy of a database while it is in use.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rota_store::{Error, StoreSpace};
use rusqlite::{Connection, OpenFlags};

use crate::open::{explain, is_lost_sync};
use crate::{disk, lock, readers, search, sql};
use rota_store::codec::unsigned;

/// Room that must remain free for the database and its log, which grows as long as the copy is read.
const MIN_ROOM: u64 = 64 * 1024 * 1024;

/// Writes a copy of the last commit to a file that has no name any more: it ends with its last user, also in a crash.
pub(crate) fn create(database: &Path) -> Result<File, Error> {
    let copy = disk::sibling(database, ".backup");
    remove(&copy)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags).map_err(|error| explain(&error))?;
    check_room(&connection, database)?;
    // It has secrets and prompts: only its owner may read it, from the first byte on.
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&copy);
    let file = file.map_err(|error| failed("created", &error))?;
    let copied = connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()]);
    let removed = remove(&copy);
    copied.map_err(|error| explain(&error))?;
    removed.map(|()| file)
}

/// Checks the pages of a copy, and that it is one of a store.
pub(crate) fn check(copy: &Path) -> Result<(), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(copy, flags).map_err(|error| explain(&error))?;
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| explain(&error))?;
    if verdict != "ok" {
        return Err(Error::Corrupt(format!("{}: {verdict}", copy.display())));
    }
    let revision = readers::revision(&connection)?;
    tracing::debug!(revision, "the copy is intact");
    Ok(())
}

/// Puts a copy in place of a database, which is the old one or the new one at any time.
pub(crate) fn restore(copy: &Path, database: &Path, replace: bool) -> Result<(), Error> {
    let _lock = lock::acquire(database)?;
    check(copy)?;
    if database.exists() && !replace {
        let message = format!("{} exists already", database.display());
        return Err(Error::Unavailable { message, hint: "to lose its records, replace it with --replace" });
    }
    let new = disk::sibling(database, ".restored");
    remove(&new)?;
    let replaced = replace_by_copy(copy, &new, database);
    if replaced.is_err() {
        // It would take the room of the store that is there.
        let _ = remove(&new);
    }
    replaced
}

fn replace_by_copy(copy: &Path, new: &Path, database: &Path) -> Result<(), Error> {
    fs::copy(copy, new)
        .and_then(|_| fs::set_permissions(new, fs::Permissions::from_mode(0o600)))
        .and_then(|()| File::open(new)?.sync_all())
        .map_err(|error| failed("copied", &error))?;
    // The log of the old database would be taken for one of the new.
    if database.exists() {
        absorb_log(database)?;
    }
    // It follows another history.
    search::remove(database);
    fs::rename(new, database).map_err(|error| failed("renamed", &error))?;
    let folder = database.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all());
    folder.map_err(|error| failed("written", &error))
}

/// Ends the log of a database: what it has is part of the database then, or it is removed with a database that is damaged.
fn absorb_log(database: &Path) -> Result<(), Error> {
    let closed = Connection::open(database)
        .and_then(|connection| connection.query_row(sql::TRUNCATE_LOG, [], |_| Ok(())));
    if let Err(error) = closed {
        if is_lost_sync(&error) {
            return Err(Error::Unavailable {
                message: format!("the database that is replaced cannot be written: {error}"),
                hint: "check the disk, then repeat the command",
            });
        }
        tracing::warn!(%error, "the database that is replaced is damaged");
    }
    remove(&disk::sibling(database, "-wal"))?;
    remove(&disk::sibling(database, "-shm"))
}

fn check_room(connection: &Connection, database: &Path) -> Result<(), Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0)).map(unsigned);
    let pages = number("page_count").and_then(|all| Ok(all.saturating_sub(number("freelist_count")?)));
    let size = pages.and_then(|pages| Ok(pages.saturating_mul(number("page_size")?)));
    let size = size.map_err(|error| explain(&error))?;
    match disk::volume(database) {
        // The store must not count as nearly full because of its copy.
        Some(volume) if volume.free < size.saturating_add(room(volume)) => Err(Error::Unavailable {
            message: format!(
                "a backup needs {size} bytes next to the database, but its volume has {} free",
                volume.free
            ),
            hint: "free some space or enlarge the volume, or copy the volume with a snapshot",
        }),
        _ => Ok(()),
    }
}

fn room(volume: disk::Volume) -> u64 {
    let space = StoreSpace { volume: volume.size, ..StoreSpace::default() };
    space.needed().saturating_add(MIN_ROOM.min(volume.size / 20))
}

fn remove(copy: &Path) -> Result<(), Error> {
    match fs::remove_file(copy) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("removed", &error)),
        _ => Ok(()),
    }
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    let message = format!("the file of a backup cannot be {what}: {error}");
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the copy needs room next to the database, which stays until the copy is complete: free some space or enlarge the volume"
        }
        _ => "check the data directory's owner and permissions",
    };
    Error::Unavailable { message, hint }
}
