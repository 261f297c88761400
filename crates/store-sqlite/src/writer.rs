//! The write connection: all changes use it.

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{DependencyKey, DependencyState, Event, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_store::{Error, FileLock, Session, Snapshot, WaitKey, WriteTxn};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use uuid::Uuid;

use crate::open::{explain, is_lost_sync};
use crate::rows::{decode, encode, signed};
use crate::{readers, sql};

#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    /// The last assigned revision, including the open transaction.
    revision: u64,
    /// The last revision that is durable.
    durable: u64,
    /// Set after a failed sync: the state of the disk is unknown, and another sync would not reveal it.
    broken: Option<Error>,
    _lock: FileLock,
}

impl Writer {
    pub(crate) fn new(connection: Connection, lock: FileLock) -> Result<Self, Error> {
        let revision = readers::revision(&connection)?;
        Ok(Self { connection, revision, durable: revision, broken: None, _lock: lock })
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<usize, Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| explain(&error))?;
        statement.execute(params).map_err(|error| explain(&error))
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        readers::one(&self.connection, sql, params, read)
    }

    fn body(&self, sql: &str, id: TaskId) -> Result<Option<Bytes>, Error> {
        readers::body(&self.connection, sql, id)
    }

    fn ids(&self, sql: &str, params: impl Params) -> Result<Vec<TaskId>, Error> {
        readers::all(&self.connection, sql, params, |row| row.get::<_, Uuid>(0).map(TaskId))
    }

    fn commit_durably(&self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([]).map(drop)
    }

    /// Removes the waits of a task that ended while it waited, so that its removal leaves nothing behind.
    fn forget_waits(&self, task: &Task) -> Result<(), Error> {
        let missing =
            task.dependencies.iter().filter(|dependency| dependency.state == DependencyState::Missing);
        let waits = missing.map(|dependency| match &dependency.key {
            DependencyKey::Id(id) => WaitKey::Id(*id),
            DependencyKey::Alias(alias) => WaitKey::Alias(alias.clone()),
        });
        let agent = task.agent().filter(|_| !task.agent_known).cloned().map(WaitKey::Agent);
        for key in waits.chain(agent) {
            self.run(sql::DELETE_WAIT, params![task.namespace.as_str(), key.to_string(), task.id.0])?;
        }
        Ok(())
    }
}

impl WriteTxn for Writer {
    fn begin(&mut self) -> Result<(), Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if !self.connection.is_autocommit() {
            // The last transaction could not be rolled back in time.
            self.rollback();
        }
        self.run("BEGIN IMMEDIATE", []).map(drop)
    }

    fn commit(&mut self) -> Result<(), Error> {
        match self.commit_durably() {
            Ok(()) => {
                self.durable = self.revision;
                Ok(())
            }
            Err(error) => {
                let cause = explain(&error);
                if is_lost_sync(&error) {
                    self.broken = Some(cause.clone());
                }
                Err(cause)
            }
        }
    }

    fn rollback(&mut self) {
        // Some errors have already rolled back; then this has no effect.
        let _ = self.run("ROLLBACK", []);
        self.revision = self.durable;
    }

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, Error> {
        readers::task(&self.connection, id)
    }

    fn insert_task(&mut self, task: &Task, route: RouteId, payload: &Bytes) -> Result<(), Error> {
        self.run(
            sql::INSERT_TASK,
            params![
                task.id.0,
                task.namespace.as_str(),
                task.state as u8,
                route.0,
                task.rank(),
                task.due().map(|at| at.0),
                task.ended_at.map(|at| at.0),
                encode(task)?
            ],
        )?;
        self.run(sql::INSERT_PAYLOAD, params![task.id.0, &payload[..]]).map(drop)
    }

    fn update_task(&mut self, task: &Task, route: RouteId) -> Result<(), Error> {
        self.run(
            sql::UPDATE_TASK,
            params![
                task.id.0,
                task.state as u8,
                route.0,
                task.rank(),
                task.due().map(|at| at.0),
                task.ended_at.map(|at| at.0),
                encode(task)?
            ],
        )
        .map(drop)
    }

    fn delete_task(&mut self, task: &Task, now: Timestamp) -> Result<(), Error> {
        let (id, deletes) = (
            task.id.0,
            [
                sql::DELETE_TASK,
                sql::DELETE_PAYLOAD,
                sql::DELETE_RESULT,
                sql::DELETE_SECRETS,
                sql::DELETE_EVENTS,
            ],
        );
        for sql in deletes {
            self.run(sql, [id])?;
        }
        self.run(sql::LEAVE_KEY, params![id, now.0])?;
        self.run(sql::SET_FLOOR, [signed(self.revision)])?;
        if let Some(alias) = &task.alias {
            self.run(sql::DELETE_ALIAS, params![task.namespace.as_str(), alias, id])?;
        }
        self.forget_waits(task)
    }

    fn append(&mut self, id: TaskId, events: &[Event]) -> Result<u64, Error> {
        let first = events.first().map_or(0, |event| event.log_seq);
        let revision = self.revision + 1;
        self.run(sql::APPEND, params![signed(revision), id.0, signed(first), encode(&events)?])?;
        self.revision = revision;
        Ok(revision)
    }

    fn payload(&mut self, id: TaskId) -> Result<Option<Bytes>, Error> {
        self.body(sql::PAYLOAD, id)
    }

    fn put_result(&mut self, id: TaskId, result: &Bytes) -> Result<(), Error> {
        self.run(sql::PUT_RESULT, params![id.0, &result[..]]).map(drop)
    }

    fn result(&mut self, id: TaskId) -> Result<Option<Bytes>, Error> {
        self.body(sql::RESULT, id)
    }

    fn put_secrets(&mut self, id: TaskId, secrets: &Bytes) -> Result<(), Error> {
        self.run(sql::PUT_SECRETS, params![id.0, &secrets[..]]).map(drop)
    }

    fn secrets(&mut self, id: TaskId) -> Result<Option<Bytes>, Error> {
        self.body(sql::SECRETS, id)
    }

    fn delete_secrets(&mut self, id: TaskId) -> Result<(), Error> {
        self.run(sql::DELETE_SECRETS, [id.0]).map(drop)
    }

    fn ready(&mut self, route: RouteId, limit: usize) -> Result<Vec<(i64, TaskId)>, Error> {
        readers::all(&self.connection, sql::READY, params![route.0, signed(limit)], |row| {
            Ok((row.get(0)?, TaskId(row.get(1)?)))
        })
    }

    fn due(&mut self, now: Timestamp, limit: usize) -> Result<Vec<TaskId>, Error> {
        self.ids(sql::DUE, params![now.0, signed(limit)])
    }

    fn next_due(&mut self) -> Result<Option<Timestamp>, Error> {
        readers::next_due(&self.connection)
    }

    fn ended_before(&mut self, before: Timestamp, limit: usize) -> Result<Vec<TaskId>, Error> {
        self.ids(sql::ENDED_BEFORE, params![before.0, signed(limit)])
    }

    fn add_route(&mut self, route: &Route) -> Result<RouteId, Error> {
        let text = route_text(route)?;
        self.run(sql::INSERT_ROUTE, [&text])?;
        let id = u32::try_from(self.connection.last_insert_rowid());
        id.map(RouteId).map_err(|_| Error::Corrupt("there are no more numbers for routes".to_owned()))
    }

    fn delete_route(&mut self, id: RouteId) -> Result<(), Error> {
        self.run(sql::DELETE_ROUTE, [id.0]).map(drop)
    }

    fn newest(&mut self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error> {
        readers::newest(&self.connection, namespace, alias)
    }

    fn put_alias(&mut self, namespace: &Namespace, alias: &str, id: TaskId) -> Result<(), Error> {
        self.run(sql::PUT_ALIAS, params![namespace.as_str(), alias, id.0]).map(drop)
    }

    fn key(&mut self, namespace: &Namespace, key: &str) -> Result<Option<TaskId>, Error> {
        self.one(sql::KEY, params![namespace.as_str(), key], |row| row.get(0).map(TaskId))
    }

    fn put_key(&mut self, namespace: &Namespace, key: &str, id: TaskId) -> Result<(), Error> {
        self.run(sql::PUT_KEY, params![namespace.as_str(), key, id.0]).map(drop)
    }

    fn delete_keys(&mut self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        self.run(sql::DELETE_KEYS, params![before.0, signed(limit)])
    }

    fn put_wait(&mut self, namespace: &Namespace, key: &WaitKey, waiter: TaskId) -> Result<(), Error> {
        self.run(sql::PUT_WAIT, params![namespace.as_str(), key.to_string(), waiter.0]).map(drop)
    }

    fn take_waits(&mut self, namespace: &Namespace, key: &WaitKey) -> Result<Vec<TaskId>, Error> {
        let key = key.to_string();
        let ids = self.ids(sql::WAITS, params![namespace.as_str(), key])?;
        if !ids.is_empty() {
            self.run(sql::DELETE_WAITS, params![namespace.as_str(), key])?;
        }
        Ok(ids)
    }

    fn put_edge(&mut self, id: TaskId, dependent: TaskId) -> Result<(), Error> {
        self.run(sql::PUT_EDGE, params![id.0, dependent.0]).map(drop)
    }

    fn take_edges(&mut self, id: TaskId) -> Result<Vec<TaskId>, Error> {
        let ids = self.ids(sql::EDGES, [id.0])?;
        if !ids.is_empty() {
            self.run(sql::DELETE_EDGES, [id.0])?;
        }
        Ok(ids)
    }

    fn put_agent(&mut self, agent: &Agent) -> Result<(), Error> {
        self.run(sql::PUT_AGENT, params![agent.namespace.as_str(), agent.name.as_str(), encode(agent)?])
            .map(drop)
    }

    fn delete_agent(&mut self, namespace: &Namespace, name: &AgentName) -> Result<(), Error> {
        self.run(sql::DELETE_AGENT, params![namespace.as_str(), name.as_str()]).map(drop)
    }

    fn session(&mut self, namespace: &Namespace, worker: &WorkerName) -> Result<Option<Session>, Error> {
        let record: Option<Vec<u8>> =
            self.one(sql::SESSION, params![namespace.as_str(), worker.as_str()], |row| row.get(0))?;
        record.map(|record| decode(&record)).transpose()
    }

    fn put_session(&mut self, session: &Session) -> Result<(), Error> {
        self.run(
            sql::PUT_SESSION,
            params![
                session.namespace.as_str(),
                session.worker.as_str(),
                signed(session.epoch.0),
                session.open,
                (!session.open).then_some(session.since.0),
                encode(session)?
            ],
        )
        .map(drop)
    }

    fn delete_sessions(&mut self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        self.run(sql::DELETE_SESSIONS, params![before.0, signed(limit)])
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
