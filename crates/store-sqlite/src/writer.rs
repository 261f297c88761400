//! The write connection: all changes use it.

use rota_core::RouteId;
use rota_core::task::Task;
use rota_store::{Backend, Changes, Error, FileLock, Load, Loaded, Snapshot, Written, stored_due};
use rusqlite::{Connection, OptionalExtension, Params, params};

use crate::open::explain;
use crate::rows::{encode, signed};
use crate::{readers, rows, sql};

#[derive(Debug)]
pub struct Writer {
    pub(crate) connection: Connection,
    /// Raised by each opening: a write of an earlier one is rejected.
    epoch: i64,
    _lock: FileLock,
}

impl Writer {
    pub(crate) fn new(connection: Connection, lock: FileLock) -> Result<Self, Error> {
        let mut writer = Self { connection, epoch: 0, _lock: lock };
        writer.run("BEGIN IMMEDIATE", [])?;
        let opened = writer.take_over().and_then(|()| writer.run("COMMIT", []));
        if opened.is_err() {
            let _ = writer.run("ROLLBACK", []);
        }
        opened.map(|_| writer)
    }

    /// Raises the epoch, and puts records that can be decoded again, for example after a downgrade was undone, back where
    /// they belong.
    fn take_over(&mut self) -> Result<(), Error> {
        self.run(sql::RAISE_EPOCH, [])?;
        self.epoch = readers::one(&self.connection, sql::EPOCH, [], |row| row.get(0))?.unwrap_or_default();
        let rows = readers::all(&self.connection, sql::UNDECODABLE, [], |row| {
            let key = readers::key(row, 1)?;
            Ok((RouteId(row.get(0)?), readers::decoded(key, row, 3)?))
        })?;
        for (route, task) in rows {
            if let Ok(task) = task {
                self.update_task(&task, route)?;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<usize, Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| explain(&error))?;
        statement.execute(params).map_err(|error| explain(&error))
    }

    /// Writes in the open transaction.
    fn put(&self, changes: &Changes) -> Result<Written, Error> {
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
        Ok(Written { next_due: readers::next_due(&self.connection)? })
    }

    fn remove(&self, changes: &Changes) -> Result<(), Error> {
        for task in &changes.removed {
            let key = signed(task.key.0);
            for sql in [
                sql::DELETE_TASK,
                sql::DELETE_PAYLOAD,
                sql::DELETE_RESULT,
                sql::DELETE_SECRETS,
                sql::DELETE_EVENTS,
            ] {
                self.run(sql, [key])?;
            }
            self.run(sql::LEAVE_KEY, params![key, changes.now.0])?;
            if let Some(alias) = &task.alias {
                self.run(sql::DELETE_ALIAS, params![task.namespace.as_str(), alias, key])?;
            }
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
        for ((namespace, key), waiter) in &changes.removed_waits {
            self.run(sql::DELETE_WAIT, params![namespace.as_str(), key.to_string(), signed(waiter.0)])?;
        }
        for (namespace, name) in &changes.removed_agents {
            self.run(sql::DELETE_AGENT, params![namespace.as_str(), name.as_str()])?;
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
            self.update_task(task, *route)?;
        }
        for (sql, bodies) in [(sql::PUT_RESULT, &changes.results), (sql::PUT_SECRETS, &changes.secrets)] {
            for (key, body) in bodies {
                self.run(sql, params![signed(key.0), &body[..]])?;
            }
        }
        for (revision, key, events) in &changes.log {
            let first = events.first().map_or(0, |event| event.log_seq);
            let params = params![signed(*revision), signed(key.0), signed(first), encode(events)?];
            self.run(sql::APPEND, params)?;
        }
        Ok(())
    }

    fn insert_task(&self, task: &Task, route: RouteId) -> Result<(), Error> {
        let params = params![
            signed(task.key.0),
            task.id.0,
            task.namespace.as_str(),
            task.state as u8,
            route.0,
            task.rank(),
            stored_due(task).map(|at| at.0),
            task.ended_at.map(|at| at.0),
            encode(task)?
        ];
        self.run(sql::INSERT_TASK, params).map(drop)
    }

    fn update_task(&self, task: &Task, route: RouteId) -> Result<(), Error> {
        let params = params![
            signed(task.key.0),
            task.state as u8,
            route.0,
            task.rank(),
            stored_due(task).map(|at| at.0),
            task.ended_at.map(|at| at.0),
            encode(task)?
        ];
        self.run(sql::UPDATE_TASK, params).map(drop)
    }

    fn put_names(&self, changes: &Changes) -> Result<(), Error> {
        for (id, route) in &changes.routes {
            self.run(sql::INSERT_ROUTE, params![id.0, rows::route_text(route)?])?;
        }
        for ((namespace, alias), key) in &changes.aliases {
            self.run(sql::PUT_ALIAS, params![namespace.as_str(), alias, signed(key.0)])?;
        }
        for ((namespace, name), id, key) in &changes.idempotency_keys {
            self.run(sql::PUT_KEY, params![namespace.as_str(), name, id.0, signed(key.0)])?;
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
        self.run("BEGIN IMMEDIATE", [])?;
        let written = self.put(changes).and_then(|written| self.run("COMMIT", []).map(|_| written));
        if written.is_err() {
            // Some errors have already rolled back; then this has no effect.
            let _ = self.run("ROLLBACK", []);
        }
        written
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        readers::snapshot(&self.connection)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Leaves a small file; if it fails, the next opening does the same.
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).optional();
    }
}
