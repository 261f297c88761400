//! The write connection: all changes use it.

use bytes::Bytes;
use rota_core::target::Route;
use rota_core::task::Task;
use rota_core::{RouteId, TaskId};
use rota_store::{
    Backend, Changes, Error, ExpiredKeys, ExpiredRows, FileLock, Keys, ReadyKey, ReadyRow, Rows, Session,
    Snapshot, Stored, Written,
};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use uuid::Uuid;

use crate::open::explain;
use crate::rows::{encode, signed, stored};
use crate::{readers, sql};

#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    /// Raised by each opening: a write of an earlier one is rejected.
    epoch: i64,
    _lock: FileLock,
}

impl Writer {
    pub(crate) fn new(connection: Connection, lock: FileLock) -> Result<Self, Error> {
        let mut writer = Self { connection, epoch: 0, _lock: lock };
        writer.run("BEGIN IMMEDIATE", [])?;
        let opened = writer.take_over().and_then(|()| writer.commit_durably());
        if opened.is_err() {
            let _ = writer.run("ROLLBACK", []);
        }
        opened.map(|()| writer)
    }

    /// Raises the epoch, and puts records that can be decoded again, for example after a downgrade was undone, back where
    /// they belong.
    fn take_over(&mut self) -> Result<(), Error> {
        self.run(sql::RAISE_EPOCH, [])?;
        self.epoch = readers::one(&self.connection, sql::EPOCH, [], |row| row.get(0))?.unwrap_or_default();
        let rows = readers::all(&self.connection, sql::UNDECODABLE, [], |row| {
            Ok((RouteId(row.get(0)?), stored::<Task>(row.get_ref(2)?.as_blob()?)))
        })?;
        for (route, task) in rows {
            if let Ok(task) = task {
                self.put_task(sql::UPDATE_TASK, &task, route)?;
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

    /// Reads the row of each key, if there is one.
    fn rows<K: Clone, P: Params, T>(
        &self,
        sql: &str,
        keys: &[K],
        params: impl Fn(&K) -> P,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<(K, T)>, Error> {
        let mut found = Vec::new();
        for key in keys {
            found.extend(
                readers::one(&self.connection, sql, params(key), &read)?.map(|row| (key.clone(), row)),
            );
        }
        Ok(found)
    }

    fn bodies(&self, sql: &str, keys: &[TaskId]) -> Result<Vec<(TaskId, Bytes)>, Error> {
        self.rows(sql, keys, |id| [id.0], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)))
    }

    fn tasks(&self, keys: &[TaskId]) -> Result<Vec<(TaskId, Stored<Task>)>, Error> {
        // Decoded in place, without a copy of the record.
        self.rows(sql::TASK, keys, |id| [id.0], |row| Ok(stored(row.get_ref(0)?.as_blob()?)))
    }

    /// Reads the ids that are linked to each key.
    fn links<K: Clone, P: Params>(
        &self,
        sql: &str,
        keys: &[K],
        params: impl Fn(&K) -> P,
    ) -> Result<Vec<(K, Vec<TaskId>)>, Error> {
        let mut found = Vec::new();
        for key in keys {
            let ids = self.ids(sql, params(key))?;
            if !ids.is_empty() {
                found.push((key.clone(), ids));
            }
        }
        Ok(found)
    }

    fn ids(&self, sql: &str, params: impl Params) -> Result<Vec<TaskId>, Error> {
        readers::all(&self.connection, sql, params, |row| row.get::<_, Uuid>(0).map(TaskId))
    }

    fn ready(&self, key: &ReadyKey) -> Result<Vec<ReadyRow>, Error> {
        let sql = if key.payloads { sql::READY_PAYLOADS } else { sql::READY };
        readers::all(&self.connection, sql, params![key.route.0, signed(key.limit)], |row| {
            let payload =
                if key.payloads { Some(Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?)) } else { None };
            Ok(ReadyRow {
                rank: row.get(0)?,
                id: TaskId(row.get(1)?),
                task: stored(row.get_ref(2)?.as_blob()?),
                payload,
            })
        })
    }

    fn expired(&self, keys: &ExpiredKeys) -> Result<ExpiredRows, Error> {
        let limit = signed(keys.limit);
        let mut rows = ExpiredRows {
            sessions: self.names(sql::LEFT_SESSIONS, params![keys.left_before.0, limit])?,
            ..ExpiredRows::default()
        };
        if let Some(before) = keys.ended_before {
            rows.keys = self.names(sql::ORPHANED_KEYS, params![before.0, limit])?;
            rows.tasks = self.tasks(&self.ids(sql::ENDED_BEFORE, params![before.0, limit])?)?;
        }
        Ok(rows)
    }

    /// Reads pairs of a namespace and a name, which were valid when they were stored.
    fn names<N: std::str::FromStr, M: std::str::FromStr>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<(N, M)>, Error> {
        let pairs: Vec<(String, String)> =
            readers::all(&self.connection, sql, params, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let bad = || Error::Corrupt("a stored name is not valid".to_owned());
        let parse = |(namespace, name): (String, String)| {
            Ok((namespace.parse().map_err(|_| bad())?, name.parse().map_err(|_| bad())?))
        };
        pairs.into_iter().map(parse).collect()
    }

    fn commit_durably(&self) -> Result<(), Error> {
        let committed = self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        committed.map(drop).map_err(|error| explain(&error))
    }

    /// Writes in the open transaction.
    fn put(&self, changes: &Changes) -> Result<Written, Error> {
        let advance =
            params![self.epoch, signed(changes.before), signed(changes.revision), changes.last_route];
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
            let id = task.id.0;
            for sql in [
                sql::DELETE_TASK,
                sql::DELETE_PAYLOAD,
                sql::DELETE_RESULT,
                sql::DELETE_SECRETS,
                sql::DELETE_EVENTS,
            ] {
                self.run(sql, [id])?;
            }
            self.run(sql::LEAVE_KEY, params![id, changes.now.0])?;
            if let Some(alias) = &task.alias {
                self.run(sql::DELETE_ALIAS, params![task.namespace.as_str(), alias, id])?;
            }
        }
        for id in &changes.undecodable {
            self.run(sql::SET_ASIDE, [id.0])?;
        }
        for id in &changes.removed_secrets {
            self.run(sql::DELETE_SECRETS, [id.0])?;
        }
        for id in &changes.removed_routes {
            self.run(sql::DELETE_ROUTE, [id.0])?;
        }
        for (namespace, key) in &changes.removed_keys {
            self.run(sql::DELETE_KEY, params![namespace.as_str(), key])?;
        }
        for ((namespace, key), waiter) in &changes.removed_waiters {
            self.run(sql::DELETE_WAIT, params![namespace.as_str(), key.to_string(), waiter.0])?;
        }
        for (namespace, key) in &changes.removed_waits {
            self.run(sql::DELETE_WAITS, params![namespace.as_str(), key.to_string()])?;
        }
        for id in &changes.removed_edges {
            self.run(sql::DELETE_EDGES, [id.0])?;
        }
        for (namespace, name) in &changes.removed_agents {
            self.run(sql::DELETE_AGENT, params![namespace.as_str(), name.as_str()])?;
        }
        for (namespace, worker) in &changes.removed_sessions {
            self.run(sql::DELETE_SESSION, params![namespace.as_str(), worker.as_str()])?;
        }
        Ok(())
    }

    fn put_tasks(&self, changes: &Changes) -> Result<(), Error> {
        for (task, route, payload) in &changes.inserted {
            self.put_task(sql::INSERT_TASK, task, *route)?;
            self.run(sql::INSERT_PAYLOAD, params![task.id.0, &payload[..]])?;
        }
        for (task, route) in &changes.updated {
            self.put_task(sql::UPDATE_TASK, task, *route)?;
        }
        for (id, result) in &changes.results {
            self.run(sql::PUT_RESULT, params![id.0, &result[..]])?;
        }
        for (id, secrets) in &changes.secrets {
            self.run(sql::PUT_SECRETS, params![id.0, &secrets[..]])?;
        }
        for (revision, id, events) in &changes.log {
            let first = events.first().map_or(0, |event| event.log_seq);
            self.run(sql::APPEND, params![signed(*revision), id.0, signed(first), encode(events)?])?;
        }
        Ok(())
    }

    fn put_task(&self, sql: &str, task: &Task, route: RouteId) -> Result<(), Error> {
        let params = params![
            task.id.0,
            task.namespace.as_str(),
            task.state as u8,
            route.0,
            task.rank(),
            task.due().map(|at| at.0),
            task.ended_at.map(|at| at.0),
            encode(task)?
        ];
        self.run(sql, params).map(drop)
    }

    fn put_names(&self, changes: &Changes) -> Result<(), Error> {
        for (id, route) in &changes.routes {
            self.run(sql::INSERT_ROUTE, params![id.0, route_text(route)?])?;
        }
        for ((namespace, alias), id) in &changes.aliases {
            self.run(sql::PUT_ALIAS, params![namespace.as_str(), alias, id.0])?;
        }
        for ((namespace, key), id) in &changes.keys {
            self.run(sql::PUT_KEY, params![namespace.as_str(), key, id.0])?;
        }
        for ((namespace, key), waiter) in &changes.waits {
            self.run(sql::PUT_WAIT, params![namespace.as_str(), key.to_string(), waiter.0])?;
        }
        for (id, dependent) in &changes.edges {
            self.run(sql::PUT_EDGE, params![id.0, dependent.0])?;
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
    fn load(&mut self, keys: &Keys) -> Result<Rows, Error> {
        let id = |row: &Row<'_>| row.get::<_, Uuid>(0).map(TaskId);
        let aliases =
            self.rows(sql::NEWEST, &keys.aliases, |(n, alias)| (n.as_str().to_owned(), alias.clone()), id)?;
        let by_key = self.rows(sql::KEY, &keys.keys, |(n, key)| (n.as_str().to_owned(), key.clone()), id)?;
        let named: Vec<_> = aliases.iter().chain(&by_key).map(|(_, id)| *id).collect();
        let mut tasks = self.tasks(&keys.tasks)?;
        tasks.extend(self.tasks(&named)?);
        let mut ready = Vec::with_capacity(keys.ready.len());
        for key in &keys.ready {
            ready.push((key.route, self.ready(key)?));
        }
        let due = match keys.due {
            Some((now, limit)) => self.tasks(&self.ids(sql::DUE, params![now.0, signed(limit)])?)?,
            None => Vec::new(),
        };
        Ok(Rows {
            tasks,
            payloads: self.bodies(sql::PAYLOAD, &keys.payloads)?,
            results: self.bodies(sql::RESULT, &keys.results)?,
            secrets: self.bodies(sql::SECRETS, &keys.secrets)?,
            dependents: self.links(sql::EDGES, &keys.dependents, |id| [id.0])?,
            aliases,
            keys: by_key,
            waits: self
                .links(sql::WAITS, &keys.waits, |(n, key)| (n.as_str().to_owned(), key.to_string()))?,
            sessions: self.rows(
                sql::SESSION,
                &keys.sessions,
                |(n, worker)| (n.as_str().to_owned(), worker.as_str().to_owned()),
                |row| Ok(stored::<Session>(row.get_ref(0)?.as_blob()?)),
            )?,
            ready,
            due,
            expired: keys.expired.as_ref().map(|keys| self.expired(keys)).transpose()?.unwrap_or_default(),
        })
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        self.run("BEGIN IMMEDIATE", [])?;
        let written = self.put(changes).and_then(|written| self.commit_durably().map(|()| written));
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

fn route_text(route: &Route) -> Result<String, Error> {
    serde_json::to_string(route).map_err(|error| Error::Corrupt(error.to_string()))
}
