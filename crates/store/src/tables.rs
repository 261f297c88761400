//! What an engine needs of a database: plain reads and writes inside one open transaction, and
//! reads beside it. No rule is decided here.

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{Event, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp, WorkerName};

use crate::{Error, FeedEntry, Figures, Filter, Page, Session, Snapshot};

/// What a PENDING task waits for that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WaitKey {
    /// A task of this id.
    Id(TaskId),
    /// A task of this alias.
    Alias(String),
    /// An agent.
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

/// One open transaction. Reads see its own writes.
pub trait Tables: Send + 'static {
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), Error>;
    /// Begins one that is sure to be undone.
    fn begin_trial(&mut self) -> Result<(), Error> {
        self.begin()
    }
    /// Makes it durable.
    fn commit(&mut self) -> Result<(), Error>;
    /// Undoes it.
    fn rollback(&mut self);

    /// A task's record.
    fn task(&mut self, id: TaskId) -> Result<Option<Task>, Error>;
    /// Adds a task.
    fn insert_task(&mut self, task: &Task, route: RouteId, payload: &Bytes) -> Result<(), Error>;
    /// Replaces a task's record.
    fn update_task(&mut self, task: &Task, route: RouteId) -> Result<(), Error>;
    /// Removes a task and all that belongs to it but its key, which is marked as left behind.
    fn delete_task(&mut self, task: &Task, now: Timestamp) -> Result<(), Error>;
    /// Adds to a task's log; gives the revision.
    fn append(&mut self, id: TaskId, events: &[Event]) -> Result<u64, Error>;
    /// What was handed in.
    fn payload(&mut self, id: TaskId) -> Result<Option<Bytes>, Error>;
    /// Keeps what a task brought.
    fn put_result(&mut self, id: TaskId, result: &Bytes) -> Result<(), Error>;
    /// What a task brought.
    fn result(&mut self, id: TaskId) -> Result<Option<Bytes>, Error>;
    /// Keeps sealed secrets.
    fn put_secrets(&mut self, id: TaskId, secrets: &Bytes) -> Result<(), Error>;
    /// Sealed secrets.
    fn secrets(&mut self, id: TaskId) -> Result<Option<Bytes>, Error>;
    /// Forgets them.
    fn delete_secrets(&mut self, id: TaskId) -> Result<(), Error>;

    /// Ready tasks of a route, lowest rank first, then oldest id.
    fn ready(&mut self, route: RouteId, limit: usize) -> Result<Vec<(i64, TaskId)>, Error>;
    /// Tasks whose time has come.
    fn due(&mut self, now: Timestamp, limit: usize) -> Result<Vec<TaskId>, Error>;
    /// When the next task's time comes.
    fn next_due(&mut self) -> Result<Option<Timestamp>, Error>;
    /// Tasks that ended before a time and may be removed, oldest first.
    fn ended_before(&mut self, before: Timestamp, limit: usize) -> Result<Vec<TaskId>, Error>;

    /// Numbers a route that has no number. A number never comes again.
    fn add_route(&mut self, route: &Route) -> Result<RouteId, Error>;
    /// Removes a route.
    fn delete_route(&mut self, id: RouteId) -> Result<(), Error>;

    /// The newest task of an alias.
    fn newest(&mut self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error>;
    /// Makes a task the newest of its alias.
    fn put_alias(&mut self, namespace: &Namespace, alias: &str, id: TaskId) -> Result<(), Error>;
    /// The task of an idempotency key.
    fn key(&mut self, namespace: &Namespace, key: &str) -> Result<Option<TaskId>, Error>;
    /// Keeps a key.
    fn put_key(&mut self, namespace: &Namespace, key: &str, id: TaskId) -> Result<(), Error>;

    /// Removes keys that were left behind before a time, oldest first; tells how many.
    fn delete_keys(&mut self, before: Timestamp, limit: usize) -> Result<usize, Error>;

    /// Notes that a task waits for something.
    fn put_wait(&mut self, namespace: &Namespace, key: &WaitKey, waiter: TaskId) -> Result<(), Error>;
    /// Who waits for it; they are forgotten.
    fn take_waits(&mut self, namespace: &Namespace, key: &WaitKey) -> Result<Vec<TaskId>, Error>;
    /// Notes that `dependent` waits for the end of `id`.
    fn put_edge(&mut self, id: TaskId, dependent: TaskId) -> Result<(), Error>;
    /// Who waits for the end of `id`; they are forgotten.
    fn take_edges(&mut self, id: TaskId) -> Result<Vec<TaskId>, Error>;

    /// Keeps an agent.
    fn put_agent(&mut self, agent: &Agent) -> Result<(), Error>;
    /// Removes an agent.
    fn delete_agent(&mut self, namespace: &Namespace, name: &AgentName) -> Result<(), Error>;
    /// A worker's session row.
    fn session(&mut self, namespace: &Namespace, worker: &WorkerName) -> Result<Option<Session>, Error>;
    /// Keeps a session row.
    fn put_session(&mut self, session: &Session) -> Result<(), Error>;
    /// Removes rows of sessions that ended before a time, oldest first; tells how many.
    fn delete_sessions(&mut self, before: Timestamp, limit: usize) -> Result<usize, Error>;

    /// Everything that is kept in memory; outside of a transaction.
    fn snapshot(&mut self) -> Result<Snapshot, Error>;
}

/// Reads beside the writer, of what is committed. Blocking.
pub trait Reads: Send + Sync + 'static {
    /// See [`crate::Store::task`].
    fn task(&self, id: TaskId) -> Result<Option<Task>, Error>;
    /// See [`crate::Store::newest`].
    fn newest(&self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error>;
    /// See [`crate::Store::payload`].
    fn payload(&self, id: TaskId) -> Result<Option<Bytes>, Error>;
    /// See [`crate::Store::result`].
    fn result(&self, id: TaskId) -> Result<Option<Bytes>, Error>;
    /// See [`crate::Store::list`].
    fn list(&self, filter: &Filter) -> Result<Page, Error>;
    /// See [`crate::Store::events`].
    fn events(&self, id: TaskId, after: u64, limit: usize) -> Result<Vec<Event>, Error>;
    /// See [`crate::Store::feed`].
    fn feed(&self, after: u64, limit: usize) -> Result<Vec<FeedEntry>, Error>;
    /// See [`crate::Store::revision`].
    fn revision(&self) -> Result<u64, Error>;
    /// See [`crate::Store::ahead`].
    fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error>;
    /// See [`crate::Store::figures`].
    fn figures(&self, routes: &[RouteId]) -> Result<Figures, Error>;
    /// See [`crate::Store::snapshot`].
    fn snapshot(&self) -> Result<Snapshot, Error>;
}
