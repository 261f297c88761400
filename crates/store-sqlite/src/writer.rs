//! The write connection: all changes use it.

use std::time::Duration;

use rota_core::task::Task;
use rota_core::{AgentName, RouteId, Timestamp};
use rota_store::{
    Backend, Changes, DocumentKey, Error, FileLock, Load, Loaded, Snapshot, Written, place_of, stored_due,
    stored_task_end,
};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Params, params};
use tokio::time::Instant;

use crate::disk::Reserve;
use crate::open::{BUSY_TIMEOUT, explain, is_disk_full};
use crate::{readers, snapshot, sql, workflows};
use rota_store::codec::{self, encode, signed};

/// WAL pages of 4 KiB after which the writer checkpoints, in a commit for which all calls wait: with 4,000, a creation under load took
/// 1.2 times as long (p99), and with 300 not noticeably less than with these.
const CHECKPOINT_PAGES: i64 = 1000;
/// Interval between attempts to give the log's space back to a full volume.
const SHRINK_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Writer {
    pub(crate) connection: Connection,
    /// Raised by each opening: a write of an earlier one is rejected.
    epoch: i64,
    reserve: Reserve,
    /// Next deadline of workflows and steps, if it is known.
    workflow_due: Option<Option<Timestamp>>,
    /// When the log was last given back to a full volume.
    shrunk: Option<Instant>,
    /// Whether pages of the database may be lost that only the log has.
    lost_sync: bool,
    _lock: FileLock,
}

/// Raises the epoch, and puts records that can be decoded again, for example after a downgrade was undone, back where
/// they belong. Returns the epoch.
pub(crate) fn take_over(connection: &Connection) -> Result<i64, Error> {
    transact(connection, || {
        for sql in [sql::RAISE_EPOCH, sql::RESTORE_DUE, sql::RESTORE_ENDED, sql::RESTORE_STEPS] {
            run(connection, sql, [])?;
        }
        let epoch = readers::one(connection, sql::EPOCH, [], |row| row.get(0))?.unwrap_or_default();
        let rows = readers::all(connection, sql::UNDECODABLE, [], |row| {
            let key = readers::key(row, 1)?;
            Ok((RouteId(row.get(0)?), readers::decoded(key, row, 3)?))
        })?;
        for (route, task) in rows {
            if let Ok(task) = task {
                update_task(connection, &task, route)?;
            }
        }
        Ok(epoch)
    })
}

/// Copies what it can of the log into the database; the log keeps the rest. Fails only if the sync is lost.
pub(crate) fn copy_log(connection: &Connection, sql: &str) -> Result<(), Error> {
    match readers::one(connection, sql, [], |_| Ok(())) {
        Err(error) if error.is_fatal() => Err(error),
        _ => Ok(()),
    }
}

/// Writes in a transaction of its own.
fn transact<T>(connection: &Connection, write: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    run(connection, "BEGIN IMMEDIATE", [])?;
    let written = write().and_then(|written| run(connection, "COMMIT", []).map(|_| written));
    if written.is_err() {
        // Some errors have already rolled back; then this has no effect.
        let _ = run(connection, "ROLLBACK", []);
    }
    written
}

pub(crate) fn run(connection: &Connection, sql: &str, params: impl Params) -> Result<usize, Error> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| explain(&error))?;
    statement.execute(params).map_err(|error| explain(&error))
}

fn update_task(connection: &Connection, task: &Task, route: RouteId) -> Result<(), Error> {
    let params = params![
        signed(task.key.0),
        task.state as u8,
        route.0,
        task.rank(),
        stored_due(task).map(|at| at.0),
        stored_task_end(task).map(|at| at.0),
        encode(task)?
    ];
    run(connection, sql::UPDATE_TASK, params).map(drop)
}

impl Writer {
    pub(crate) fn new(connection: Connection, epoch: i64, lock: FileLock, reserve: Reserve) -> Self {
        Self { connection, epoch, reserve, workflow_due: None, shrunk: None, lost_sync: false, _lock: lock }
    }

    /// Gives the log's space back, over which it may have grown without need. Not again and again, and not behind readers:
    /// every commit waits for it. Returns whether it was tried.
    fn shrink_log(&mut self) -> Result<bool, Error> {
        if self.shrunk.is_some_and(|at| at.elapsed() < SHRINK_INTERVAL) {
            return Ok(false);
        }
        self.shrunk = Some(Instant::now());
        let _ = self.connection.busy_timeout(Duration::ZERO);
        let truncated = copy_log(&self.connection, sql::TRUNCATE_LOG);
        let _ = self.connection.busy_timeout(BUSY_TIMEOUT);
        truncated.map(|()| true)
    }

    /// Copies a long log into the database. SQLite would do so by itself, but ignore a lost sync: pages that an earlier checkpoint has
    /// copied while a reader used the log are not synced before that, and the next one would not copy them again.
    fn checkpoint(&self) -> Result<(), Error> {
        let pages = readers::one(&self.connection, sql::LOG_PAGES, [], |row| row.get::<_, i64>(1));
        if matches!(pages, Ok(Some(CHECKPOINT_PAGES..))) {
            copy_log(&self.connection, sql::CHECKPOINT)?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<usize, Error> {
        run(&self.connection, sql, params)
    }

    /// Writes in a transaction of its own.
    fn put_all(&mut self, changes: &Changes) -> Result<Written, Error> {
        self.run("BEGIN IMMEDIATE", [])?;
        let written = self.put(changes).and_then(|written| self.run("COMMIT", []).map(|_| written));
        if written.is_err() {
            self.workflow_due = None;
            // Some errors have already rolled back; then this has no effect.
            let _ = self.run("ROLLBACK", []);
            return written;
        }
        self.checkpoint()?;
        written
    }

    /// Writes, on a full volume with what can be given back or was reserved.
    fn put_with_reserve(&mut self, changes: &Changes) -> Result<Written, Error> {
        let mut written = self.put_all(changes);
        if written.as_ref().is_err_and(is_disk_full) && self.shrink_log()? {
            written = self.put_all(changes);
        }
        if written.as_ref().is_err_and(is_disk_full) && changes.end_something() && self.reserve.release() {
            tracing::warn!("the volume is full; using the reserve");
            written = self.put_all(changes);
        }
        if written.is_ok() {
            self.reserve.ensure();
        }
        written
    }

    /// Writes in the open transaction.
    fn put(&mut self, changes: &Changes) -> Result<Written, Error> {
        let away = changes.away.as_ref().map(encode).transpose()?;
        let advance = params![
            self.epoch,
            signed(changes.before),
            signed(changes.revision),
            changes.last_route,
            changes.now.0,
            away
        ];
        if self.run(sql::ADVANCE, advance)? != 1 {
            return Err(Error::Deposed);
        }
        self.remove(changes)?;
        self.put_tasks(changes)?;
        self.put_names(changes)?;
        workflows::write(&self.connection, &changes.workflows)?;
        if self.workflow_due.is_none() || changes.workflows.has_rows() {
            self.workflow_due = None;
            self.workflow_due = Some(workflows::next_due(&self.connection)?);
        }
        let due = readers::next_due(&self.connection)?;
        Ok(Written { next_due: due.into_iter().chain(self.workflow_due.flatten()).min() })
    }

    fn remove(&self, changes: &Changes) -> Result<(), Error> {
        let removed = changes.removed.iter().map(|task| task.key).chain(changes.discarded.iter().copied());
        for key in removed.map(|key| signed(key.0)) {
            for sql in [
                sql::DELETE_TASK,
                sql::DELETE_PAYLOAD,
                sql::DELETE_RESULT,
                sql::DELETE_ARTIFACTS,
                sql::DELETE_SECRETS,
                sql::DELETE_EVENTS,
            ] {
                self.run(sql, [key])?;
            }
            self.run(sql::LEAVE_KEY, params![key, changes.now.0])?;
        }
        for task in &changes.removed {
            if let Some(alias) = &task.alias {
                self.run(sql::DELETE_ALIAS, params![task.namespace.as_str(), alias, signed(task.key.0)])?;
            }
        }
        for key in &changes.discarded {
            self.run(sql::DELETE_ALIASES, [signed(key.0)])?;
        }
        for (sql, keys) in [
            (sql::SET_ASIDE, &changes.undecodable),
            (sql::DELETE_SECRETS, &changes.removed_secrets),
            (sql::DELETE_DEPENDENT, &changes.removed_dependents),
        ] {
            for key in keys {
                self.run(sql, [signed(key.0)])?;
            }
        }
        for id in &changes.removed_routes {
            self.run(sql::DELETE_ROUTE, [id.0])?;
        }
        for (namespace, key) in &changes.removed_keys {
            self.run(sql::DELETE_KEY, params![namespace.as_str(), key])?;
        }
        for (namespace, name) in &changes.removed_threads {
            self.run(sql::DELETE_THREAD, params![namespace.as_str(), name])?;
        }
        for ((namespace, key), waiter) in &changes.removed_waits {
            self.run(sql::DELETE_WAIT, params![namespace.as_str(), key.to_string(), signed(waiter.0)])?;
        }
        for (namespace, name) in &changes.removed_agents {
            self.run(sql::DELETE_AGENT, params![namespace.as_str(), name.as_str()])?;
        }
        for (namespace, credential) in &changes.removed_cool_downs {
            self.run(sql::DELETE_COOL_DOWN, params![namespace.as_str(), credential.to_string()])?;
        }
        for DocumentKey { kind, namespace, name } in &changes.removed_documents {
            self.run(sql::DELETE_DOCUMENT, params![kind.as_str(), namespace.as_str(), name])?;
        }
        for (namespace, worker) in &changes.removed_sessions {
            self.run(sql::DELETE_SESSION, params![namespace.as_str(), worker.as_str()])?;
        }
        for number in &changes.removed_follow_ups {
            self.run(sql::DELETE_FOLLOW_UP, [signed(*number)])?;
        }
        Ok(())
    }

    fn put_tasks(&self, changes: &Changes) -> Result<(), Error> {
        for (task, route, payload) in &changes.inserted {
            self.insert_task(task, *route)?;
            self.run(sql::INSERT_PAYLOAD, params![signed(task.key.0), &payload[..]])?;
        }
        for (task, route) in &changes.updated {
            update_task(&self.connection, task, *route)?;
        }
        for (sql, bodies) in [(sql::PUT_RESULT, &changes.results), (sql::PUT_SECRETS, &changes.secrets)] {
            for (key, body) in bodies {
                self.run(sql, params![signed(key.0), &body[..]])?;
            }
        }
        for (key, list) in &changes.artifacts {
            self.run(sql::PUT_ARTIFACTS, params![signed(key.task.0), key.attempt, &list[..]])?;
        }
        for (revision, key, events) in &changes.log {
            let first = events.first().map_or(0, |event| event.log_seq);
            let params = params![signed(*revision), signed(key.0), signed(first), encode(events)?];
            self.run(sql::APPEND, params)?;
        }
        Ok(())
    }

    fn insert_task(&self, task: &Task, route: RouteId) -> Result<(), Error> {
        let place = place_of(task);
        let params = params![
            signed(task.key.0),
            task.id.0,
            task.namespace.as_str(),
            task.state as u8,
            route.0,
            task.rank(),
            stored_due(task).map(|at| at.0),
            stored_task_end(task).map(|at| at.0),
            encode(task)?,
            place.map(|(workflow, _)| signed(workflow.0)),
            place.map(|(_, (step, ..))| step),
            place.map(|(_, (_, round, _))| round),
            place.map(|(.., (_, _, item))| item)
        ];
        self.run(sql::INSERT_TASK, params).map(drop)
    }

    fn put_names(&self, changes: &Changes) -> Result<(), Error> {
        for (id, route) in &changes.routes {
            self.run(sql::INSERT_ROUTE, params![id.0, codec::route_text(route)?])?;
        }
        for ((namespace, alias), key) in &changes.aliases {
            self.run(sql::PUT_ALIAS, params![namespace.as_str(), alias, signed(key.0)])?;
        }
        for ((namespace, name), id, key) in &changes.idempotency_keys {
            self.run(sql::PUT_KEY, params![namespace.as_str(), name, id.0, signed(key.0)])?;
        }
        for ((namespace, name), thread) in &changes.threads {
            let idle = thread.idle_since().map(|at| at.0);
            self.run(sql::PUT_THREAD, params![namespace.as_str(), name, idle, encode(thread)?])?;
        }
        for ((namespace, key), waiter) in &changes.waits {
            self.run(sql::PUT_WAIT, params![namespace.as_str(), key.to_string(), signed(waiter.0)])?;
        }
        for (task, dependent) in &changes.edges {
            self.run(sql::PUT_EDGE, [signed(task.0), signed(dependent.0)])?;
        }
        for (number, follow_up) in &changes.follow_ups {
            self.run(sql::PUT_FOLLOW_UP, params![signed(*number), encode(follow_up)?])?;
        }
        for agent in &changes.agents {
            let params = params![agent.namespace.as_str(), agent.name.as_str(), encode(&**agent)?];
            self.run(sql::PUT_AGENT, params)?;
        }
        for cool_down in &changes.cool_downs {
            let credential = cool_down.credential.to_string();
            let params = params![cool_down.namespace.as_str(), credential, encode(&**cool_down)?];
            self.run(sql::PUT_COOL_DOWN, params)?;
        }
        for account in &changes.accounts {
            let agent = account.scope.agent().map(AgentName::as_str).unwrap_or_default();
            self.run(sql::PUT_ACCOUNT, params![account.namespace.as_str(), agent, encode(&**account)?])?;
        }
        for document in &changes.documents {
            let DocumentKey { kind, namespace, name } = &document.key;
            let params = params![kind.as_str(), namespace.as_str(), name, encode(&**document)?];
            self.run(sql::PUT_DOCUMENT, params)?;
        }
        for session in &changes.sessions {
            let ended = (!session.open).then_some(session.since.0);
            let params = params![
                session.namespace.as_str(),
                session.worker.as_str(),
                signed(session.epoch.0),
                session.open,
                ended,
                encode(session)?
            ];
            self.run(sql::PUT_SESSION, params)?;
        }
        Ok(())
    }
}

impl Backend for Writer {
    fn load(&mut self, load: &Load) -> Result<Loaded, Error> {
        // One transaction for all statements: each would lock the file on its own.
        self.run("BEGIN", [])?;
        let loaded = self.read(load);
        let ended = self.run("COMMIT", []);
        loaded.and_then(|loaded| ended.map(|_| loaded))
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        let written = self.put_with_reserve(changes);
        self.lost_sync |= matches!(written, Err(Error::LostSync(_)));
        written
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        snapshot::read(&self.connection, false)
    }

    fn stored_revision(&mut self) -> Result<u64, Error> {
        readers::revision(&self.connection)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Leaves a small file, as closing does. After a lost sync, only the next opening may: it copies the whole log.
        if self.lost_sync || copy_log(&self.connection, sql::TRUNCATE_LOG).is_err() {
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}
