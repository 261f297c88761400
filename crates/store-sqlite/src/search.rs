//! Full-text index of a database (FTS5), in a file of its own: `<database>.search`. Writing it does not hold up commits, and it is no
//! part of backups. It has words and no text. A damaged one, or one of another version or store, is removed, and built again.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::TaskKey;
use rota_store::Error;
use rota_store::codec::{signed, unsigned};
use rota_store::search::{ChangedTexts, INDEX_VERSION, IndexUpdate, SearchIndex, SearchQuery, of_namespace};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use tokio::time::Instant;

use crate::open::{BUSY_TIMEOUT, explain};
use crate::readers::decoded;
use crate::{Readers, disk, sql};

/// Time of one search: others wait for it.
const MAX_SEARCH: Duration = Duration::from_secs(10);
/// Operations of SQLite after which a search looks at the clock.
const CLOCK_OPS: i32 = 1000;

/// Words as they are given, and their beginnings of the length from which on a query finds longer words (`MIN_PREFIX_CHARS`): only the spaces between them separate them. The other characters are those of namespaces.
const SCHEMA: &str = "
    CREATE VIRTUAL TABLE tasks USING fts5(words, content='', contentless_delete=1, detail=none, prefix='3',
        tokenize=\"ascii tokenchars '/-.'\");
    CREATE TABLE position (id INTEGER PRIMARY KEY CHECK (id = 0), store BLOB NOT NULL, revision INTEGER NOT NULL);";
const SEARCH: &str =
    "SELECT rowid FROM tasks WHERE tasks MATCH ?1 AND rowid < ?2 ORDER BY rowid DESC LIMIT ?3";
const KEYS: &str = "SELECT rowid FROM tasks WHERE rowid > ?1 ORDER BY rowid LIMIT ?2";
const PUT: &str = "INSERT OR REPLACE INTO tasks (rowid, words) VALUES (?1, ?2)";
const REMOVE: &str = "DELETE FROM tasks WHERE rowid = ?1";
const CLEAR: &str = "INSERT INTO tasks (tasks) VALUES ('delete-all')";
const POSITION: &str = "SELECT revision FROM position WHERE store = ?1";
const MOVE: &str = "INSERT OR REPLACE INTO position (id, store, revision) VALUES (0, ?1, ?2)";

/// Why a call of an index has failed.
#[derive(Debug)]
enum Failure {
    /// It was damaged, and is removed. The store is intact.
    Damaged,
    Other(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Damaged => Self::Unavailable {
                message: "the search index was damaged, and is being built again".to_owned(),
                hint: "search again in some minutes",
            },
            Failure::Other(error) => error,
        }
    }
}

/// File of an index, which is opened when it is first used: a start does not wait for it.
#[derive(Debug)]
pub(crate) struct SearchFile {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl SearchFile {
    pub(crate) fn of(database: &Path) -> Self {
        Self { path: disk::sibling(database, ".search"), connection: Mutex::default() }
    }

    /// Searches for a limited time.
    fn search(&self, query: &SearchQuery, time: Duration) -> Result<Vec<TaskKey>, Failure> {
        let before: i64 = signed(query.before.map_or(u64::MAX, |key| key.0));
        let limit: i64 = signed(query.limit);
        self.with(|connection| {
            let end = Instant::now() + time;
            connection.progress_handler(CLOCK_OPS, Some(move || Instant::now() >= end))?;
            let find = || {
                let mut statement = connection.prepare_cached(SEARCH)?;
                let found = statement.query_map(params![expression(query), before, limit], key)?;
                found.collect()
            };
            let found = find();
            connection.progress_handler(0, None::<fn() -> bool>)?;
            found
        })
    }

    fn with<T>(&self, call: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let mut slot = self.connection.lock();
        let outcome = match &mut *slot {
            Some(connection) => call(connection),
            None => open(&self.path).and_then(|connection| call(slot.insert(connection))),
        };
        outcome.map_err(|error| {
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
                return Failure::Other(too_long());
            }
            let error = explain(&error);
            if matches!(error, Error::Corrupt(_)) {
                tracing::warn!(%error, "the search index is damaged: it is removed, and built again");
                *slot = None;
                remove_files(&self.path);
                return Failure::Damaged;
            }
            Failure::Other(error)
        })
    }
}

fn too_long() -> Error {
    Error::Unavailable {
        message: format!("the search took longer than {} s", MAX_SEARCH.as_secs()),
        hint: "search for rarer words, in one namespace",
    }
}

/// Opens a file; one of another version makes place for an empty one.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == INDEX_VERSION {
        return Ok(connection);
    }
    drop(connection);
    remove_files(path);
    let mut connection = connect(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "user_version", INDEX_VERSION)?;
    transaction.commit()?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // It has words of prompts: only its owner may read it, from the first byte on. SQLite reports why it cannot be opened.
    drop(OpenOptions::new().append(true).create(true).mode(0o600).open(path));
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // After a power loss the last changes are missing together with the position that has them.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    Ok(connection)
}

/// Removes the index of a database: another one takes its place.
pub(crate) fn remove(database: &Path) {
    remove_files(&disk::sibling(database, ".search"));
}

fn remove_files(path: &Path) {
    for path in [path.to_owned(), disk::sibling(path, "-wal"), disk::sibling(path, "-shm")] {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "failed to remove a file of the search index");
        }
    }
}

/// Returns what FTS5 looks for. Words have no character that has a meaning within quotes.
fn expression(query: &SearchQuery) -> String {
    let namespace = query.namespace.iter().map(|namespace| format!("\"{}\"", of_namespace(namespace)));
    let words = query.words.iter().map(|word| {
        let prefix = if word.is_prefix() { "*" } else { "" };
        format!("\"{}\"{prefix}", word.text())
    });
    namespace.chain(words).collect::<Vec<_>>().join(" AND ")
}

fn key(row: &Row<'_>) -> rusqlite::Result<TaskKey> {
    Ok(TaskKey(unsigned(row.get(0)?)))
}

impl SearchIndex for Readers {
    fn search(&self, query: &SearchQuery) -> Result<Vec<TaskKey>, Error> {
        Ok(self.search.search(query, MAX_SEARCH)?)
    }

    fn changed_texts(&self, after: u64, entries: usize) -> Result<ChangedTexts, Error> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached(sql::CHANGED_TEXTS).map_err(|error| explain(&error))?;
            let wanted: [i64; 2] = [signed(after), signed(entries)];
            let mut rows = statement.query(wanted).map_err(|error| explain(&error))?;
            let (mut changed, mut seen, mut count) = (ChangedTexts::default(), BTreeSet::new(), 0);
            while let Some(row) = rows.next().map_err(|error| explain(&error))? {
                let of = |row: &Row<'_>| Ok((unsigned(row.get(0)?), row.get::<_, Option<i64>>(1)?));
                let (revision, task) = of(row).map_err(|error| explain(&error))?;
                changed.last = Some(revision);
                count += 1;
                let Some(key) = task.map(|key| TaskKey(unsigned(key))).filter(|key| seen.insert(*key)) else {
                    continue;
                };
                let task = decoded(key, row, 2).map_err(|error| explain(&error))?;
                changed.tasks.extend(task.ok().map(|task| (revision, task)));
            }
            changed.more = count == entries;
            Ok(changed)
        })
    }

    fn indexed_revision(&self) -> Result<Option<u64>, Error> {
        let store = self.store_id()?;
        let read = self.search.with(|connection| {
            let revision = connection.query_row(POSITION, [store], |row| row.get::<_, i64>(0)).optional()?;
            Ok(revision.map(unsigned))
        });
        match read {
            // It was removed.
            Err(Failure::Damaged) => Ok(None),
            read => Ok(read?),
        }
    }

    fn update_index(&self, update: &IndexUpdate) -> Result<bool, Error> {
        let store = self.store_id()?;
        let is_made = self.search.with(|connection| {
            let transaction = connection.transaction()?;
            match update.after {
                Some(after) => {
                    let position = transaction.query_row(POSITION, [store], |row| row.get::<_, i64>(0));
                    if position.optional()?.map(unsigned) != Some(after) {
                        return Ok(false);
                    }
                }
                None => {
                    transaction.execute(CLEAR, [])?;
                }
            }
            {
                let mut put = transaction.prepare_cached(PUT)?;
                for task in &update.tasks {
                    put.execute(params![signed(task.key.0), task.words().join(" ")])?;
                }
                let mut remove = transaction.prepare_cached(REMOVE)?;
                for key in &update.removed {
                    remove.execute([signed(key.0)])?;
                }
            }
            transaction.execute(MOVE, params![store, signed(update.through)])?;
            transaction.commit()?;
            Ok(true)
        })?;
        Ok(is_made)
    }

    fn indexed_keys(&self, after: TaskKey, limit: usize) -> Result<Vec<TaskKey>, Error> {
        let (after, limit): (i64, i64) = (signed(after.0), signed(limit));
        let keys = self.search.with(|connection| {
            let mut statement = connection.prepare_cached(KEYS)?;
            let found = statement.query_map([after, limit], key)?;
            found.collect()
        })?;
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use rota_core::Namespace;
    use rota_store::Store;
    use rota_store::search::{IndexedTask, MIN_PREFIX_CHARS, query_words};

    use super::*;

    fn readers(folder: &Path) -> (crate::Writer, Readers) {
        crate::open_connections(&folder.join("rota.db")).unwrap()
    }

    fn update(readers: &Readers) {
        let namespace = Namespace::new("n").unwrap();
        let tasks = vec![IndexedTask::new(TaskKey(7), &namespace, ["a needle"])];
        let update = IndexUpdate { after: None, through: 9, tasks, removed: Vec::new() };
        assert!(readers.update_index(&update).unwrap());
        let query = SearchQuery { words: query_words("needle"), limit: 10, ..SearchQuery::default() };
        assert_eq!(readers.search(&query).unwrap(), [TaskKey(7)]);
    }

    #[test]
    fn search_ends_after_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, index) = readers(folder.path());
        let namespace = Namespace::new("n").unwrap();
        let tasks: Vec<_> =
            (1..5000).map(|key| IndexedTask::new(TaskKey(key), &namespace, ["a needle"])).collect();
        let update = IndexUpdate { after: None, through: 9, tasks, removed: Vec::new() };
        assert!(index.update_index(&update).unwrap());
        let query = SearchQuery { words: query_words("needle"), limit: 10_000, ..SearchQuery::default() };
        let cut = Error::from(index.search.search(&query, Duration::ZERO).unwrap_err());
        assert!(cut.to_string().contains("longer than 10 s"), "{cut}");
        assert_eq!(index.search(&query).unwrap().len(), 4999);
        // Of prefixes longer than those that the index has, too.
        let query = SearchQuery { words: query_words("need"), limit: 1, ..SearchQuery::default() };
        assert_eq!(index.search(&query).unwrap(), [TaskKey(4999)]);
        assert!(SCHEMA.contains(&format!("prefix='{MIN_PREFIX_CHARS}'")));
    }

    /// A pipe as the file: opening it takes until another process reads it.
    #[tokio::test]
    async fn reads_do_not_wait_for_searches() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rota.db");
        let pipe = folder.path().join("rota.db.search");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let clock: crate::Clock = std::sync::Arc::new(|| rota_core::Timestamp(1));
        let store = std::sync::Arc::new(crate::open(crate::Options { path, clock, seed: 0 }).unwrap());
        let mut searches = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = std::sync::Arc::clone(&store);
            searches.spawn(async move { store.indexed_keys(TaskKey(0), 1).await });
        }
        tokio::task::yield_now().await;
        let read = tokio::time::timeout(Duration::from_secs(30), store.revision()).await;
        let waits = searches.try_join_next().is_none();
        let reader = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap();
        while searches.join_next().await.is_some() {}
        drop(reader);
        assert!(read.is_ok() && waits);
        store.close().await;
    }

    #[test]
    fn index_that_is_damaged_or_of_another_store_is_built_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rota.db.search");
        let (writer, index) = readers(folder.path());
        assert_eq!(index.indexed_revision().unwrap(), None);
        update(&index);
        assert_eq!(index.indexed_revision().unwrap(), Some(9));
        drop((writer, index));
        fs::write(&file, [b'x'; 8192]).unwrap();
        let (writer, index) = readers(folder.path());
        let damaged = index.indexed_keys(TaskKey(0), 1);
        assert!(matches!(damaged, Err(Error::Unavailable { .. })), "{damaged:?}");
        assert_eq!(index.indexed_revision().unwrap(), None, "it was removed");
        update(&index);
        drop((writer, index));
        // Another database takes the place of the old one.
        remove_files(&folder.path().join("rota.db"));
        let (_writer, index) = readers(folder.path());
        assert_eq!(index.indexed_revision().unwrap(), None);
        update(&index);
    }

    #[test]
    fn index_counts_as_size_of_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, index) = readers(folder.path());
        let size = || rota_store::Reader::space(&index).unwrap().unwrap().size;
        let before = size();
        update(&index);
        assert!(size() > before);
    }

    #[test]
    fn index_of_another_version_makes_place() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, index) = readers(folder.path());
        update(&index);
        index.search.with(|connection| connection.pragma_update(None, "user_version", 99)).unwrap();
        *index.search.connection.lock() = None;
        assert_eq!(index.indexed_revision().unwrap(), None);
    }
}
