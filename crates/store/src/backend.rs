//! Interface between the engine and a database: one load and one write per batch, and concurrent reads. Decides no rule.
//!
//! Both calls carry arrays, so that a database across a network needs one round trip for each.

use std::sync::Arc;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{Event, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp, WorkerName};

use crate::{Budget, Error, FeedEntry, Filter, Page, Session, Snapshot, StoreStats};

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

/// An alias or an idempotency key.
pub type NameKey = (Namespace, String);
pub type SessionKey = (Namespace, WorkerName);
pub type WaitsKey = (Namespace, WaitKey);

/// A stored record, or why it cannot be decoded.
pub type Stored<T> = Result<T, String>;

/// What one load reads. Keys without a row are absent from the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    pub tasks: Vec<TaskId>,
    pub payloads: Vec<TaskId>,
    pub results: Vec<TaskId>,
    pub secrets: Vec<TaskId>,
    /// Tasks whose dependents are read.
    pub dependents: Vec<TaskId>,
    pub aliases: Vec<NameKey>,
    /// Idempotency keys whose tasks are read.
    pub keys: Vec<NameKey>,
    pub waits: Vec<WaitsKey>,
    pub sessions: Vec<SessionKey>,
    /// Routes whose first ready tasks are read.
    pub ready: Vec<ReadyKey>,
    /// Tasks with a deadline up to this time.
    pub due: Option<(Timestamp, usize)>,
    pub expired: Option<ExpiredKeys>,
}

/// The first ready tasks of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyKey {
    pub route: RouteId,
    /// Largest number of rows that are read.
    pub limit: usize,
    /// Whether the payloads are read too, for an assignment.
    pub payloads: bool,
}

/// What a prune reads: the oldest rows of each kind that ended before a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiredKeys {
    /// Bound for tasks, and for keys whose task was removed; `None` reads neither.
    pub ended_before: Option<Timestamp>,
    /// Bound for the end of sessions.
    pub left_before: Timestamp,
    /// Largest number of rows of each kind.
    pub limit: usize,
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Row of a task that is ready.
#[derive(Debug, Clone)]
pub struct ReadyRow {
    pub rank: i64,
    pub id: TaskId,
    pub task: Stored<Task>,
    /// The payload, if it was asked for.
    pub payload: Option<Bytes>,
}

/// Result of a load, in the order of the keys unless stated otherwise.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    pub tasks: Vec<(TaskId, Stored<Task>)>,
    pub payloads: Vec<(TaskId, Bytes)>,
    pub results: Vec<(TaskId, Bytes)>,
    pub secrets: Vec<(TaskId, Bytes)>,
    pub dependents: Vec<(TaskId, Vec<TaskId>)>,
    pub aliases: Vec<(NameKey, TaskId)>,
    pub keys: Vec<(NameKey, TaskId)>,
    pub waits: Vec<(WaitsKey, Vec<TaskId>)>,
    pub sessions: Vec<(SessionKey, Stored<Session>)>,
    /// Lowest rank first, then lowest id.
    pub ready: Vec<(RouteId, Vec<ReadyRow>)>,
    /// Tasks in the order of their deadlines.
    pub due: Vec<(TaskId, Stored<Task>)>,
    pub expired: ExpiredRows,
}

/// Expired rows of each kind, oldest first.
#[derive(Debug, Clone, Default)]
pub struct ExpiredRows {
    pub tasks: Vec<(TaskId, Stored<Task>)>,
    pub keys: Vec<NameKey>,
    pub sessions: Vec<SessionKey>,
}

/// What one write changes, atomically. Removals happen before additions of the same kind.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Revision of the shard before the write. A write on another revision fails with [`Error::Deposed`].
    pub before: u64,
    /// Revision of the shard after the write.
    pub revision: u64,
    pub now: Timestamp,
    /// Highest id of a route that was ever assigned.
    pub last_route: u32,
    /// New tasks, with their payloads.
    pub inserted: Vec<(Arc<Task>, RouteId, Bytes)>,
    pub updated: Vec<(Arc<Task>, RouteId)>,
    /// Tasks to remove with everything that belongs to them, except their idempotency keys, which become orphans.
    pub removed: Vec<Arc<Task>>,
    /// Tasks whose record cannot be decoded: kept, but neither ready nor due any more.
    pub undecodable: Vec<TaskId>,
    pub results: Vec<(TaskId, Bytes)>,
    pub secrets: Vec<(TaskId, Bytes)>,
    pub removed_secrets: Vec<TaskId>,
    /// New log entries of one task, with their revision.
    pub log: Vec<(u64, TaskId, Arc<[Event]>)>,
    pub routes: Vec<(RouteId, Route)>,
    pub removed_routes: Vec<RouteId>,
    pub aliases: Vec<(NameKey, TaskId)>,
    pub keys: Vec<(NameKey, TaskId)>,
    pub removed_keys: Vec<NameKey>,
    /// Tasks that wait for a missing object.
    pub waits: Vec<(WaitsKey, TaskId)>,
    /// Objects that no stored task waits for any more.
    pub removed_waits: Vec<WaitsKey>,
    /// Removed tasks that still waited when they ended.
    pub removed_waiters: Vec<(WaitsKey, TaskId)>,
    /// Tasks that wait for the end of another task: the other one, then the dependent.
    pub edges: Vec<(TaskId, TaskId)>,
    /// Tasks whose stored dependents were notified.
    pub removed_edges: Vec<TaskId>,
    pub agents: Vec<Arc<Agent>>,
    pub removed_agents: Vec<(Namespace, AgentName)>,
    pub sessions: Vec<Session>,
    pub removed_sessions: Vec<SessionKey>,
}

impl Changes {
    /// Whether there is anything to write.
    pub fn has_rows(&self) -> bool {
        let counts = [
            self.inserted.len(),
            self.updated.len(),
            self.removed.len(),
            self.undecodable.len(),
            self.results.len(),
            self.secrets.len(),
            self.removed_secrets.len(),
            self.log.len(),
            self.routes.len(),
            self.removed_routes.len(),
            self.aliases.len(),
            self.keys.len(),
            self.removed_keys.len(),
            self.waits.len(),
            self.removed_waits.len(),
            self.removed_waiters.len(),
            self.edges.len(),
            self.removed_edges.len(),
            self.agents.len(),
            self.removed_agents.len(),
            self.sessions.len(),
            self.removed_sessions.len(),
        ];
        counts.into_iter().any(|count| count > 0)
    }
}

/// What a write returns once it is durable.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Next deadline of any task.
    pub next_due: Option<Timestamp>,
}

/// Connection of the shard's only writer.
pub trait Backend: Send + 'static {
    /// Reads committed rows, in one round trip.
    fn load(&mut self, keys: &Keys) -> Result<Rows, Error>;
    /// Makes changes durable, all or none, in one round trip: if the shard's revision is the expected one.
    fn write(&mut self, changes: &Changes) -> Result<Written, Error>;
    /// Returns the state that is kept in memory.
    fn snapshot(&mut self) -> Result<Snapshot, Error>;
}

/// Concurrent reads of committed data, one method per read of [`crate::Store`]. Blocking.
pub trait Reader: Send + Sync + 'static {
    fn task(&self, id: TaskId) -> Result<Option<Task>, Error>;
    fn newest(&self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error>;
    fn payload(&self, id: TaskId) -> Result<Option<Bytes>, Error>;
    fn result(&self, id: TaskId) -> Result<Option<Bytes>, Error>;
    fn list(&self, filter: &Filter) -> Result<Page, Error>;
    fn events(&self, id: TaskId, after: u64, budget: Budget) -> Result<Vec<Event>, Error>;
    fn feed(&self, after: u64, budget: Budget) -> Result<Vec<FeedEntry>, Error>;
    fn revision(&self) -> Result<u64, Error>;
    fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error>;
    fn stats(&self, routes: &[RouteId]) -> Result<StoreStats, Error>;
    fn snapshot(&self) -> Result<Snapshot, Error>;
}
