//! Read connections, and the queries that they share with the writer.

use std::slice::from_ref;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{Event, Task};
use rota_core::{Namespace, RouteId, TaskId, Timestamp};
use rota_store::{Budget, Error, FeedEntry, Filter, Page, Reader, Session, Snapshot, StoreStats};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use uuid::Uuid;

use crate::open::explain;
use crate::rows::{decode, signed, stored, unsigned};
use crate::sql;

/// Rows that one page of a list may read: with a selective filter a page is short, not slow.
const MAX_SCANNED_ROWS: usize = 5000;

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

pub(crate) fn body(connection: &Connection, sql: &str, id: TaskId) -> Result<Option<Bytes>, Error> {
    Ok(one(connection, sql, [id.0], |row| row.get::<_, Vec<u8>>(0))?.map(Bytes::from))
}

fn records<T: serde::de::DeserializeOwned>(connection: &Connection, sql: &str) -> Result<Vec<T>, Error> {
    let rows = all(connection, sql, [], |row| row.get::<_, Vec<u8>>(0))?;
    rows.iter().map(|record| decode(record)).collect()
}

pub(crate) fn task(connection: &Connection, id: TaskId) -> Result<Option<Task>, Error> {
    // Decoded in place, without a copy of the record.
    let task = one(connection, sql::TASK, [id.0], |row| Ok(decode(row.get_ref(0)?.as_blob()?)))?;
    task.transpose()
}

pub(crate) fn newest(
    connection: &Connection,
    namespace: &Namespace,
    alias: &str,
) -> Result<Option<TaskId>, Error> {
    one(connection, sql::NEWEST, params![namespace.as_str(), alias], |row| row.get(0).map(TaskId))
}

pub(crate) fn next_due(connection: &Connection) -> Result<Option<Timestamp>, Error> {
    Ok(one(connection, sql::NEXT_DUE, [], |row| row.get(0))?.map(Timestamp))
}

pub(crate) fn revision(connection: &Connection) -> Result<u64, Error> {
    Ok(unsigned(one(connection, sql::SHARD, [], |row| row.get(0))?.unwrap_or(0)))
}

/// Reads a consistent snapshot. The caller is the writer, or has an open transaction.
pub(crate) fn snapshot(connection: &Connection) -> Result<Snapshot, Error> {
    let routes =
        all(connection, sql::ROUTES, [], |row| Ok((RouteId(row.get(0)?), row.get::<_, String>(1)?)))?;
    let routes = routes.into_iter().map(|(id, text)| {
        let route: Route = serde_json::from_str(&text).map_err(|error| Error::Corrupt(error.to_string()))?;
        Ok((id, route))
    });
    let rows = all(connection, sql::ON_WORKERS, [], |row| {
        Ok((RouteId(row.get(0)?), TaskId(row.get(1)?), stored::<Task>(row.get_ref(2)?.as_blob()?)))
    })?;
    let (mut on_workers, mut undecodable) = (Vec::new(), Vec::new());
    for (route, id, task) in rows {
        match task {
            Ok(task) => on_workers.push((route, task)),
            Err(reason) => undecodable.push((id, reason)),
        }
    }
    on_workers.sort_unstable_by_key(|(_, task)| task.id);
    let set_aside = all(connection, sql::UNDECODABLE, [], |row| {
        Ok((TaskId(row.get(1)?), stored::<Task>(row.get_ref(2)?.as_blob()?)))
    })?;
    undecodable.extend(set_aside.into_iter().filter_map(|(id, task)| Some((id, task.err()?))));
    let shard = one(connection, sql::SHARD, [], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))?;
    let (revision, last_route) = shard.unwrap_or_default();
    Ok(Snapshot {
        agents: records::<Agent>(connection, sql::AGENTS)?,
        routes: routes.collect::<Result<_, Error>>()?,
        queued: all(connection, sql::QUEUED, [], |row| Ok((RouteId(row.get(0)?), unsigned(row.get(1)?))))?,
        sessions: records::<Session>(connection, sql::SESSIONS)?,
        on_workers,
        next_due: next_due(connection)?,
        revision,
        last_route,
        undecodable,
    })
}

/// Pool of read-only connections; a caller waits until one is free.
#[derive(Debug)]
pub struct Readers {
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
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
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        Self { idle: Mutex::new(connections), returned: Condvar::new() }
    }

    fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
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
    fn task(&self, id: TaskId) -> Result<Option<Task>, Error> {
        self.with(|connection| task(connection, id))
    }

    fn newest(&self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error> {
        self.with(|connection| newest(connection, namespace, alias))
    }

    fn payload(&self, id: TaskId) -> Result<Option<Bytes>, Error> {
        self.with(|connection| body(connection, sql::PAYLOAD, id))
    }

    fn result(&self, id: TaskId) -> Result<Option<Bytes>, Error> {
        self.with(|connection| body(connection, sql::RESULT, id))
    }

    fn list(&self, filter: &Filter) -> Result<Page, Error> {
        let before = filter.before_id.map_or(Uuid::max(), |id| id.0);
        self.with(|connection| {
            let states = filter.states.iter().fold(0_i64, |mask, state| mask | 1 << (*state as u8));
            let namespace = filter.namespace.as_ref().map(Namespace::as_str);
            let mut statement = connection.prepare_cached(sql::LIST).map_err(|error| explain(&error))?;
            let mut rows = statement
                .query(params![before, namespace, states, signed(MAX_SCANNED_ROWS)])
                .map_err(|error| explain(&error))?;
            let (mut page, mut seen, mut last) = (Page::default(), 0, None);
            while page.tasks.len() < filter.limit {
                let Some(row) = rows.next().map_err(|error| explain(&error))? else { break };
                seen += 1;
                last = Some(TaskId(row.get(0).map_err(|error| explain(&error))?));
                // One that cannot be decoded is missing from the list, and does not hide the others.
                if let Ok(task) = blob::<Task>(row, 1)
                    && filter.fits(&task)
                {
                    page.tasks.push(task);
                }
            }
            let more = page.tasks.len() == filter.limit || seen == MAX_SCANNED_ROWS;
            page.next = last.filter(|_| more);
            Ok(page)
        })
    }

    fn events(&self, id: TaskId, after: u64, mut budget: Budget) -> Result<Vec<Event>, Error> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql::EVENTS).map_err(|error| explain(&error))?;
            let wanted = signed(after.saturating_add(1));
            let mut rows = statement.query(params![id.0, wanted]).map_err(|error| explain(&error))?;
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

    fn feed(&self, after: u64, mut budget: Budget) -> Result<Vec<FeedEntry>, Error> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql::FEED).map_err(|error| explain(&error))?;
            let wanted = params![signed(after), signed(budget.entries.max(1))];
            let mut rows = statement.query(wanted).map_err(|error| explain(&error))?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next().map_err(|error| explain(&error))? {
                let revision = unsigned(row.get(0).map_err(|error| explain(&error))?);
                let id = TaskId(row.get(1).map_err(|error| explain(&error))?);
                // Entries that cannot be decoded are missing, and do not hide those of others.
                let events: Vec<Event> = blob(row, 2).unwrap_or_default();
                let is_last = budget.spend(&events);
                entries.push(FeedEntry { revision, id, events });
                if is_last {
                    break;
                }
            }
            Ok(entries)
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
            snapshot(&moment)
        })
    }
}

fn blob<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, Error> {
    let bytes = row.get_ref(column).map_err(|error| explain(&error))?;
    decode(bytes.as_blob().map_err(|error| Error::Corrupt(error.to_string()))?)
}
