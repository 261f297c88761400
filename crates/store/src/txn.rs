//! Interface between the engine and a database: reads and writes in the writer's transaction, and concurrent reads.
//! Decides no rule.

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{Event, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp, WorkerName};

use crate::{Error, FeedEntry, Filter, Page, Session, Snapshot, StoreStats};

/// Missing object that a PENDING task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WaitKey {
    Id(TaskId),
    Alias(String),
    Agent(AgentName),
}

impl std::fmt::Display for WaitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "id/{id}"),
            Self::Alias(alias) => write!(f, "alias/{alias}"),
            Self::Agent(agent) => write!(f, "agent/{agent}"),
        }
    }
}

/// Transaction of the single writer. Reads see its own writes.
pub trait WriteTxn: Send + 'static {
    fn begin(&mut self) -> Result<(), Error>;
    /// Begins a transaction that will be rolled back.
    fn begin_dry_run(&mut self) -> Result<(), Error> {
        self.begin()
    }
    fn commit(&mut self) -> Result<(), Error>;
    fn rollback(&mut self);

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, Error>;
    fn insert_task(&mut self, task: &Task, route: RouteId, payload: &Bytes) -> Result<(), Error>;
    fn update_task(&mut self, task: &Task, route: RouteId) -> Result<(), Error>;
    /// Removes a task and everything that belongs to it, except its idempotency key, which is marked as orphaned.
    fn delete_task(&mut self, task: &Task, now: Timestamp) -> Result<(), Error>;
    /// Appends to a task's log, and returns the revision.
    fn append(&mut self, id: TaskId, events: &[Event]) -> Result<u64, Error>;
    /// Returns the payload of a task.
    fn payload(&mut self, id: TaskId) -> Result<Option<Bytes>, Error>;
    fn put_result(&mut self, id: TaskId, result: &Bytes) -> Result<(), Error>;
    /// Returns the result of a task.
    fn result(&mut self, id: TaskId) -> Result<Option<Bytes>, Error>;
    fn put_secrets(&mut self, id: TaskId, secrets: &Bytes) -> Result<(), Error>;
    fn secrets(&mut self, id: TaskId) -> Result<Option<Bytes>, Error>;
    fn delete_secrets(&mut self, id: TaskId) -> Result<(), Error>;

    /// Returns ready tasks of a route, lowest rank first, then oldest id.
    fn ready(&mut self, route: RouteId, limit: usize) -> Result<Vec<(i64, TaskId)>, Error>;
    /// Returns tasks with a deadline before `now`.
    fn due(&mut self, now: Timestamp, limit: usize) -> Result<Vec<TaskId>, Error>;
    /// Next deadline of any task.
    fn next_due(&mut self) -> Result<Option<Timestamp>, Error>;
    /// Returns tasks that ended before a time, oldest first.
    fn ended_before(&mut self, before: Timestamp, limit: usize) -> Result<Vec<TaskId>, Error>;

    /// Interns a new route. Ids are never reused.
    fn add_route(&mut self, route: &Route) -> Result<RouteId, Error>;
    fn delete_route(&mut self, id: RouteId) -> Result<(), Error>;

    /// Returns the newest task of an alias.
    fn newest(&mut self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error>;
    fn put_alias(&mut self, namespace: &Namespace, alias: &str, id: TaskId) -> Result<(), Error>;
    /// Returns the task of an idempotency key.
    fn key(&mut self, namespace: &Namespace, key: &str) -> Result<Option<TaskId>, Error>;
    fn put_key(&mut self, namespace: &Namespace, key: &str, id: TaskId) -> Result<(), Error>;

    /// Removes keys that were orphaned before a time, oldest first, and returns their number.
    fn delete_keys(&mut self, before: Timestamp, limit: usize) -> Result<usize, Error>;

    /// Stores that a task waits for a missing object.
    fn put_wait(&mut self, namespace: &Namespace, key: &WaitKey, waiter: TaskId) -> Result<(), Error>;
    /// Removes and returns the tasks that wait for a missing object.
    fn take_waits(&mut self, namespace: &Namespace, key: &WaitKey) -> Result<Vec<TaskId>, Error>;
    /// Stores that `dependent` waits for the end of `id`.
    fn put_edge(&mut self, id: TaskId, dependent: TaskId) -> Result<(), Error>;
    /// Removes and returns the tasks that wait for the end of `id`.
    fn take_edges(&mut self, id: TaskId) -> Result<Vec<TaskId>, Error>;

    fn put_agent(&mut self, agent: &Agent) -> Result<(), Error>;
    fn delete_agent(&mut self, namespace: &Namespace, name: &AgentName) -> Result<(), Error>;
    /// Session of a worker, as stored.
    fn session(&mut self, namespace: &Namespace, worker: &WorkerName) -> Result<Option<Session>, Error>;
    fn put_session(&mut self, session: &Session) -> Result<(), Error>;
    /// Removes sessions that ended before a time, oldest first, and returns their number.
    fn delete_sessions(&mut self, before: Timestamp, limit: usize) -> Result<usize, Error>;

    /// Returns the state that is kept in memory. Called outside of a transaction.
    fn snapshot(&mut self) -> Result<Snapshot, Error>;
}

/// Concurrent reads of committed data, one method per read of [`crate::Store`]. Blocking.
pub trait ReadTxn: Send + Sync + 'static {
    fn task(&self, id: TaskId) -> Result<Option<Task>, Error>;
    fn newest(&self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error>;
    fn payload(&self, id: TaskId) -> Result<Option<Bytes>, Error>;
    fn result(&self, id: TaskId) -> Result<Option<Bytes>, Error>;
    fn list(&self, filter: &Filter) -> Result<Page, Error>;
    fn events(&self, id: TaskId, after: u64, limit: usize) -> Result<Vec<Event>, Error>;
    fn feed(&self, after: u64, limit: usize) -> Result<Vec<FeedEntry>, Error>;
    fn revision(&self) -> Result<u64, Error>;
    fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error>;
    fn stats(&self, routes: &[RouteId]) -> Result<StoreStats, Error>;
    fn snapshot(&self) -> Result<Snapshot, Error>;
}
