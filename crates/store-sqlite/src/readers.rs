//! Read connections, and the queries that they share with the writer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::slice::from_ref;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rota_core::task::{Event, Task};
use rota_core::{RouteId, TaskId, TaskKey, Timestamp};
use rota_store::{
    ArtifactsKey, ArtifactsKeys, ArtifactsRow, Budget, Document, DocumentKey, Documents, DocumentsPage,
    Error, FeedEntry, FeedPage, Filter, NameKey, Page, Reader, ScopedId, SealedSecrets, Snapshot, StateRow,
    StoreSpace, StoreStats, Stored, TaskBody, TaskRow, Thread, WorkflowQuery, WorkflowRows,
};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use uuid::Uuid;

use crate::open::explain;
use crate::search::SearchFile;
use crate::{backup, disk, documents, list, snapshot, sql, workflows};
use rota_store::codec::{decode, signed, stored, unsigned};
use rota_store::snapshot::{Read, parse_names};

pub(crate) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, Error> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| explain(&error))?;
    statement.query_row(params, read).optional().map_err(|error| explain(&error))
}

pub(crate) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Error> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| explain(&error))?;
    let rows = statement.query_map(params, read).map_err(|error| explain(&error))?;
    rows.collect::<Result<_, _>>().map_err(|error| explain(&error))
}

/// Reads a thread with its name.
pub(crate) fn thread_row(row: &Row<'_>) -> rusqlite::Result<Read<(NameKey, Stored<Thread>)>> {
    let (namespace, name): (String, String) = (row.get(0)?, row.get(1)?);
    let thread = stored::<Thread>(row.get_ref(2)?.as_blob()?);
    Ok(parse_names("thread", &namespace, &name).map(|name| (name, thread)))
}

fn bad_name() -> Error {
    Error::Corrupt("a stored name is not valid".to_owned())
}

/// Decodes a document in place, without a copy of it.
pub(crate) fn document_row(row: &Row<'_>) -> rusqlite::Result<Stored<Document>> {
    Ok(stored::<Document>(row.get_ref(0)?.as_blob()?))
}

/// Reads the key of a task.
pub(crate) fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<TaskKey> {
    Ok(TaskKey(unsigned(row.get(column)?)))
}

/// Decodes a record in place, without a copy of it.
pub(crate) fn decoded(key: TaskKey, row: &Row<'_>, column: usize) -> rusqlite::Result<Stored<Task>> {
    let task = stored::<Task>(row.get_ref(column)?.as_blob()?);
    Ok(task.map(|task| Task { key, ..task }))
}

/// Reads the columns of a task's row.
pub(crate) fn task_row(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    let key = key(row, 0)?;
    Ok(TaskRow { key, id: TaskId(row.get(1)?), task: decoded(key, row, 2)?, has_dependents: row.get(3)? })
}

/// Reads the state from a task's record, which is dropped.
pub(crate) fn state_row(row: &Row<'_>) -> rusqlite::Result<StateRow> {
    let key = key(row, 0)?;
    Ok(StateRow { key, id: TaskId(row.get(1)?), state: decoded(key, row, 2)?.map(|task| task.state) })
}

/// Returns the record of a row that a caller has named.
fn named(row: Option<TaskRow>) -> Result<Option<Task>, Error> {
    row.map(|row| row.task.map_err(Error::Corrupt)).transpose()
}

pub(crate) fn next_due(connection: &Connection) -> Result<Option<Timestamp>, Error> {
    Ok(one(connection, sql::NEXT_DUE, [], |row| row.get(0))?.map(Timestamp))
}

pub(crate) fn revision(connection: &Connection) -> Result<u64, Error> {
    Ok(unsigned(one(connection, sql::SHARD, [], |row| row.get(0))?.unwrap_or(0)))
}

/// Pool of read-only connections; a caller waits until one is free.
#[derive(Debug)]
pub struct Readers {
    idle: Mutex<Vec<Connection>>,
    count: usize,
    returned: Condvar,
    path: PathBuf,
    pub(crate) search: SearchFile,
}

/// Borrowed connection, returned to the pool on drop, also in a panic.
struct Loan<'a> {
    from: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.from.idle.lock().extend(self.connection.take());
        self.from.returned.notify_one();
    }
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>, path: &Path) -> Self {
        let count = connections.len();
        let search = SearchFile::of(path);
        Self { count, idle: Mutex::new(connections), returned: Condvar::new(), path: path.to_owned(), search }
    }

    pub(crate) fn store_id(&self) -> Result<Uuid, Error> {
        let id = self.with(|connection| one(connection, sql::SHARD, [], |row| row.get(4)))?;
        Ok(id.unwrap_or_default())
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let mut idle = self.idle.lock();
        let connection = loop {
            match idle.pop() {
                Some(connection) => break connection,
                None => self.returned.wait(&mut idle),
            }
        };
        drop(idle);
        let loan = Loan { from: self, connection: Some(connection) };
        loan.connection.as_ref().map_or(Err(Error::Closed), read)
    }
}

impl Reader for Readers {
    fn concurrency(&self) -> usize {
        self.count
    }

    fn task(&self, (namespace, id): &ScopedId) -> Result<Option<Task>, Error> {
        self.with(|connection| {
            named(one(connection, sql::TASK_BY_ID, params![namespace.as_str(), id.0], task_row)?)
        })
    }

    fn newest(&self, (namespace, alias): &NameKey) -> Result<Option<Task>, Error> {
        self.with(|connection| {
            named(one(connection, sql::TASK_BY_ALIAS, params![namespace.as_str(), alias], task_row)?)
        })
    }

    fn thread(&self, (namespace, name): &NameKey) -> Result<Option<Thread>, Error> {
        let found = self.with(|connection| {
            one(connection, sql::THREAD, params![namespace.as_str(), name], |row| {
                Ok(stored::<Thread>(row.get_ref(0)?.as_blob()?))
            })
        })?;
        found.transpose().map_err(Error::Corrupt)
    }

    fn threads(&self, after: &NameKey, limit: usize) -> Result<Vec<(NameKey, Thread)>, Error> {
        let params = params![after.0.as_str(), after.1, signed(limit as u64)];
        let rows = self.with(|connection| all(connection, sql::THREADS, params, thread_row))?;
        // One that cannot be decoded is missing from the list, and does not hide the others.
        let decoded = |row: Read<(NameKey, Stored<Thread>)>| {
            row.ok().and_then(|(name, thread)| Some((name, thread.ok()?)))
        };
        Ok(rows.into_iter().filter_map(decoded).collect())
    }

    fn workflows(&self, query: &WorkflowQuery) -> Result<WorkflowRows, Error> {
        self.with(|connection| workflows::query(connection, query))
    }

    fn document(
        &self,
        DocumentKey { kind, namespace, name }: &DocumentKey,
    ) -> Result<Option<Document>, Error> {
        let params = params![kind.as_str(), namespace.as_str(), name];
        let found = self.with(|connection| one(connection, sql::DOCUMENT, params, document_row))?;
        found.transpose().map_err(Error::Corrupt)
    }

    fn documents(&self, page: &DocumentsPage) -> Result<Documents, Error> {
        self.with(|connection| documents::page(connection, page))
    }

    fn bodies(&self, body: TaskBody, keys: &[TaskKey], bytes: u64) -> Result<Vec<(TaskKey, Bytes)>, Error> {
        let sql = match body {
            TaskBody::Payload => sql::PAYLOAD,
            TaskBody::Result => sql::RESULT,
        };
        self.with(|connection| {
            let (mut found, mut left) = (Vec::new(), bytes);
            for key in keys {
                if left == 0 {
                    break;
                }
                let body = one(connection, sql, [signed(key.0)], |row| row.get::<_, Vec<u8>>(0))?;
                left = left.saturating_sub(body.as_ref().map_or(0, Vec::len) as u64);
                found.extend(body.map(|body| (*key, body.into())));
            }
            Ok(found)
        })
    }

    fn artifacts(&self, keys: ArtifactsKeys, limit: usize) -> Result<Vec<ArtifactsRow>, Error> {
        let (from, to) = keys.into_inner();
        let params =
            params![signed(from.task.0), from.attempt, signed(to.task.0), to.attempt, signed(limit as u64)];
        self.with(|connection| {
            all(connection, sql::ARTIFACTS, params, |row| {
                let list: Vec<u8> = row.get(2)?;
                Ok((ArtifactsKey { task: key(row, 0)?, attempt: row.get(1)? }, list.into()))
            })
        })
    }

    fn secrets(&self, after: TaskKey, limit: usize) -> Result<Vec<SealedSecrets>, Error> {
        let params = params![signed(after.0), signed(limit as u64)];
        let row = |row: &Row<'_>| {
            let (namespace, sealed): (String, Vec<u8>) = (row.get(1)?, row.get(3)?);
            Ok((key(row, 0)?, namespace, TaskId(row.get(2)?), Bytes::from(sealed)))
        };
        let rows = self.with(|connection| all(connection, sql::SEALED, params, row))?;
        let valid = |(key, namespace, id, sealed): (TaskKey, String, TaskId, Bytes)| {
            let namespace = namespace.parse().map_err(|_| bad_name())?;
            Ok(SealedSecrets { key, id: (namespace, id), sealed })
        };
        rows.into_iter().map(valid).collect()
    }

    fn list(&self, filter: &Filter) -> Result<Page, Error> {
        self.with(|connection| list::page(connection, filter))
    }

    fn events(&self, key: TaskKey, after: u64, mut budget: Budget) -> Result<Vec<Event>, Error> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql::EVENTS).map_err(|error| explain(&error))?;
            let wanted = signed(after.saturating_add(1));
            let mut rows = statement.query([signed(key.0), wanted]).map_err(|error| explain(&error))?;
            let mut events = Vec::new();
            while let Some(row) = rows.next().map_err(|error| explain(&error))? {
                let row: Vec<Event> = blob(row, 0)?;
                for event in row.into_iter().filter(|event| event.log_seq > after) {
                    let is_last = budget.spend(from_ref(&event));
                    events.push(event);
                    if is_last {
                        return Ok(events);
                    }
                }
            }
            Ok(events)
        })
    }

    fn feed(&self, after: u64, mut budget: Budget) -> Result<FeedPage, Error> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql::FEED).map_err(|error| explain(&error))?;
            let wanted = params![signed(after), signed(budget.entries.max(1))];
            let mut rows = statement.query(wanted).map_err(|error| explain(&error))?;
            let mut page = FeedPage::default();
            while let Some(row) = rows.next().map_err(|error| explain(&error))? {
                let entry = |row: &Row<'_>| {
                    let (revision, key) = (unsigned(row.get(0)?), key(row, 1)?);
                    Ok((revision, decoded(key, row, 2)?.ok()))
                };
                let (revision, task) = entry(row).map_err(|error| explain(&error))?;
                // Entries that cannot be decoded are missing, and do not hide those of others.
                let events: Vec<Event> = blob(row, 3).unwrap_or_default();
                page.more = budget.spend(&events);
                page.entries.push(FeedEntry { revision, task, events });
                if page.more {
                    break;
                }
            }
            Ok(page)
        })
    }

    fn revision(&self) -> Result<u64, Error> {
        self.with(revision)
    }

    fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error> {
        let count =
            self.with(|connection| one(connection, sql::AHEAD, params![route.0, rank], |row| row.get(0)))?;
        Ok(unsigned(count.unwrap_or(0)))
    }

    fn stats(&self, routes: &[RouteId]) -> Result<StoreStats, Error> {
        self.with(|connection| {
            let pending = one(connection, sql::PENDING, [], |row| row.get(0))?;
            let mut next = Vec::new();
            for route in routes {
                let head = one(connection, sql::HEAD, [route.0], |row| {
                    Ok(stored::<Task>(row.get_ref(0)?.as_blob()?))
                })?;
                next.extend(head.and_then(Result::ok).and_then(|task| Some((*route, task.ready_at?))));
            }
            Ok(StoreStats { pending: unsigned(pending.unwrap_or(0)), next })
        })
    }

    fn snapshot(&self) -> Result<Snapshot, Error> {
        self.with(|connection| {
            let moment = connection.unchecked_transaction().map_err(|error| explain(&error))?;
            snapshot::read(&moment, true)
        })
    }

    fn space(&self) -> Result<Option<StoreSpace>, Error> {
        let Some(volume) = disk::volume(&self.path) else { return Ok(None) };
        self.with(|connection| {
            let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            let number = |pragma| number(pragma).map(unsigned).map_err(|error| explain(&error));
            let page = number("page_size")?;
            let others =
                ["-wal", ".search", ".search-wal"].map(|extension| disk::sibling(&self.path, extension));
            let others = others.iter().map(|file| fs::metadata(file).map_or(0, |file| file.len())).sum();
            Ok(Some(StoreSpace {
                size: number("page_count")?.saturating_mul(page).saturating_add(others),
                reusable: number("freelist_count")?.saturating_mul(page),
                free: volume.free,
                volume: volume.size,
            }))
        })
    }

    fn backup(&self) -> Result<File, Error> {
        backup::create(&self.path)
    }
}

fn blob<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, Error> {
    let bytes = row.get_ref(column).map_err(|error| explain(&error))?;
    decode(bytes.as_blob().map_err(|error| Error::Corrupt(error.to_string()))?)
}
