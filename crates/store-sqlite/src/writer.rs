//! The write connection: all changes use it.

use bytes::Bytes;
use rota_core::task::Task;
use rota_core::{RouteId, TaskId, TaskKey, Timestamp};
use rota_store::{
    Backend, Changes, Error, ExpiredPage, ExpiredRow, ExpiredRows, FileLock, IdempotencyRow, Load, Loaded,
    LogSize, NameKey, ReadyPage, ReadyRow, Session, Snapshot, TaskRow, WaitsPage, Written, stored_due,
};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::open::explain;
use crate::rows::{encode, signed, stored, unsigned};
use crate::{readers, rows, sql};

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

    /// Reads the row of each key, if there is one.
    fn rows<'a, K: Clone, P: Params, T>(
        &self,
        sql: &str,
        keys: &'a [K],
        params: impl Fn(&'a K) -> P,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<(K, T)>, Error> {
        let mut found = Vec::new();
        if keys.is_empty() {
            return Ok(found);
        }
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| explain(&error))?;
        for key in keys {
            let row = statement.query_row(params(key), &read).optional().map_err(|error| explain(&error))?;
            found.extend(row.map(|row| (key.clone(), row)));
        }
        Ok(found)
    }

    fn bodies(&self, sql: &str, keys: &[TaskKey]) -> Result<Vec<(TaskKey, Bytes)>, Error> {
        self.rows(
            sql,
            keys,
            |key| [signed(key.0)],
            |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)),
        )
    }

    fn tasks(&self, sql: &str, params: impl Params) -> Result<Vec<TaskRow>, Error> {
        readers::all(&self.connection, sql, params, readers::task_row)
    }

    fn idempotency_keys(&self, keys: &[NameKey]) -> Result<Vec<(NameKey, IdempotencyRow)>, Error> {
        let owner = |row: &Row<'_>| Ok((TaskId(row.get(0)?), readers::key(row, 1)?));
        let owners = self.rows(sql::KEY, keys, |(n, key)| (n.as_str(), key), owner)?;
        let row = |(name, (id, key)): (NameKey, (TaskId, TaskKey))| {
            let task = self.tasks(sql::TASK, [signed(key.0)])?.pop();
            Ok((name, IdempotencyRow { id, task }))
        };
        owners.into_iter().map(row).collect()
    }

    fn ready(&self, page: &ReadyPage) -> Result<Vec<ReadyRow>, Error> {
        let sql = if page.payloads { sql::READY_PAYLOADS } else { sql::READY };
        let (rank, key) = page.after.map_or((i64::MIN, i64::MIN), |(rank, key)| (rank, signed(key.0)));
        readers::all(&self.connection, sql, params![page.route.0, rank, key, signed(page.limit)], |row| {
            let payload =
                if page.payloads { Some(Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?)) } else { None };
            Ok(ReadyRow { rank: row.get(4)?, row: readers::task_row(row)?, payload })
        })
    }

    fn expired(&self, page: &ExpiredPage) -> Result<ExpiredRows, Error> {
        let limit = signed(page.limit);
        let mut rows = ExpiredRows {
            sessions: self.names(sql::LEFT_SESSIONS, params![page.left_before.0, limit])?,
            ..ExpiredRows::default()
        };
        if let Some(before) = page.ended_before {
            rows.keys = self.names(sql::ORPHANED_KEYS, params![before.0, limit])?;
            let (ended, key) = page.after.map_or((i64::MIN, i64::MIN), |(at, key)| (at.0, signed(key.0)));
            (rows.tasks, rows.more_tasks) = self.ended_tasks(page, params![before.0, ended, key])?;
        }
        Ok(rows)
    }

    /// Reads ended tasks up to the bounds of a page, and whether there are more. Neither they nor their logs are read beyond.
    fn ended_tasks(&self, page: &ExpiredPage, params: impl Params) -> Result<(Vec<ExpiredRow>, bool), Error> {
        let explained = |error: rusqlite::Error| explain(&error);
        let mut statement = self.connection.prepare_cached(sql::ENDED_BEFORE).map_err(explained)?;
        let mut log = self.connection.prepare_cached(sql::LOG_SIZE).map_err(explained)?;
        let mut rows = statement.query(params).map_err(explained)?;
        let (mut tasks, mut logs) = (Vec::new(), LogSize::default());
        while let Some(row) = rows.next().map_err(explained)? {
            if tasks.len() == page.limit || logs.exceeds(page.logs) {
                return Ok((tasks, true));
            }
            let ended_at = Timestamp(row.get(4).map_err(explained)?);
            let row = readers::task_row(row).map_err(explained)?;
            if !row.has_dependents {
                let left = page.logs.rows.saturating_sub(logs.rows).saturating_add(1);
                let size =
                    |row: &Row<'_>| Ok(LogSize { rows: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) });
                logs.add(log.query_row([signed(row.key.0), signed(left)], size).map_err(explained)?);
            }
            tasks.push(ExpiredRow { ended_at, row });
        }
        Ok((tasks, false))
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

    /// Reads in the open transaction.
    fn read(&self, load: &Load) -> Result<Loaded, Error> {
        let mut loaded = Loaded {
            ids: self.rows(sql::TASK_BY_ID, &load.ids, |(n, id)| (n.as_str(), id.0), readers::task_row)?,
            payloads: self.bodies(sql::PAYLOAD, &load.payloads)?,
            results: self.bodies(sql::RESULT, &load.results)?,
            secrets: self.bodies(sql::SECRETS, &load.secrets)?,
            dependencies: self.rows(
                sql::STATE_BY_ID,
                &load.dependencies,
                |(n, id)| (n.as_str(), id.0),
                readers::state_row,
            )?,
            aliases: self.rows(
                sql::STATE_BY_ALIAS,
                &load.aliases,
                |(n, alias)| (n.as_str(), alias),
                readers::state_row,
            )?,
            idempotency_keys: self.idempotency_keys(&load.idempotency_keys)?,
            sessions: self.rows(
                sql::SESSION,
                &load.sessions,
                |(n, worker)| (n.as_str(), worker.as_str()),
                |row| Ok(stored::<Session>(row.get_ref(0)?.as_blob()?)),
            )?,
            ..Loaded::default()
        };
        for key in &load.tasks {
            loaded.tasks.extend(self.tasks(sql::TASK, [signed(key.0)])?);
        }
        for page in &load.dependents {
            let params =
                [signed(page.task.0), signed(page.after.0), signed(page.until.0), signed(page.limit)];
            loaded.dependents.push(self.tasks(sql::DEPENDENTS, params)?);
        }
        for WaitsPage { key: (namespace, key), limit } in &load.waits {
            let params = params![namespace.as_str(), key.to_string(), signed(*limit)];
            let key = |row: &Row<'_>| readers::key(row, 0);
            loaded.waits.push(readers::all(&self.connection, sql::WAITERS, params, key)?);
        }
        for page in &load.ready {
            loaded.ready.push(self.ready(page)?);
        }
        if let Some((now, limit)) = load.due {
            loaded.due = self.tasks(sql::DUE, params![now.0, signed(limit)])?;
        }
        if let Some(page) = &load.expired {
            loaded.expired = self.expired(page)?;
        }
        Ok(loaded)
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
