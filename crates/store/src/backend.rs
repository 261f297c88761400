//! Interface between the engine and a database: one load and one write per batch, and concurrent reads. Decides no rule.
//!
//! Both calls carry arrays, so that a database across a network needs one round trip for each.
//!
//! A record is keyed by the revision of its creation, within its shard; a backend with several shards puts the shard in
//! front. The id that callers know is a secondary key per namespace.

use std::fs::File;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::quota::{CoolDown, CredentialId};
use rota_core::spending::{Account, Scope};
use rota_core::target::Route;
use rota_core::task::{Event, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, TaskKey, Timestamp, WorkerName};

use crate::search::SearchIndex;
use crate::{
    Budget, DatabaseStatus, Document, DocumentKey, Documents, DocumentsPage, Error, ExpiredPage, ExpiredRows,
    FeedPage, Filter, FollowUp, LogsPage, Page, Replica, SealedSecrets, Session, SessionRow, Snapshot, Span,
    StateRow, StoreSpace, StoreStats, TaskBody, Thread, WaitKey, WorkflowChanges, WorkflowLoad,
    WorkflowLoaded, WorkflowQuery, WorkflowRows,
};

/// Time for which a thread that no task uses is kept beyond the retention of tasks, with its last conversation.
pub const THREAD_TTL: std::time::Duration = std::time::Duration::from_hours(30 * 24);

/// A task's id in its namespace.
pub type ScopedId = (Namespace, TaskId);
/// An alias or an idempotency key.
pub type NameKey = (Namespace, String);
pub type SessionKey = (Namespace, WorkerName);
pub type WaitsKey = (Namespace, WaitKey);
pub type CredentialKey = (Namespace, CredentialId);
/// Key of the books of an agent, or of a namespace.
pub type AccountKey = (Namespace, Scope);

/// Key of a list of artifacts: those of an attempt, of a task's input, with number 0, or of a step that has not run
/// ([`reused_list`](crate::reused_list)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArtifactsKey {
    pub task: TaskKey,
    pub attempt: u32,
}

/// A range of keys of lists.
pub type ArtifactsKeys = RangeInclusive<ArtifactsKey>;

/// A list of artifacts: an encoded `ArtifactList` of the API.
pub type ArtifactsRow = (ArtifactsKey, Bytes);

/// A stored record, or why it cannot be decoded.
pub type Stored<T> = Result<T, String>;

/// What one load reads. Keys without a row are absent from the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    pub ids: Vec<ScopedId>,
    pub tasks: Vec<TaskKey>,
    pub payloads: Vec<TaskKey>,
    /// Bytes of payloads, of these tasks or of ready ones, after which no further one is read.
    pub payload_bytes: u64,
    pub results: Vec<TaskKey>,
    pub secrets: Vec<TaskKey>,
    /// Tasks of which those are found that wait, by columns besides their records.
    pub waiting: Vec<TaskKey>,
    /// Tasks that new ones depend on, by id and by alias: only their states, since their number is large.
    pub dependencies: Vec<ScopedId>,
    pub aliases: Vec<NameKey>,
    pub dependents: Vec<DependentsPage>,
    pub idempotency_keys: Vec<NameKey>,
    pub threads: Vec<NameKey>,
    pub documents: Vec<DocumentKey>,
    pub waits: Vec<WaitsPage>,
    pub sessions: Vec<SessionKey>,
    pub ready: Vec<ReadyPage>,
    /// Tasks that are not on a worker, with a deadline up to this time, and their largest number.
    pub due: Option<(Timestamp, usize)>,
    pub expired: Option<ExpiredPage>,
    pub logs: Option<LogsPage>,
    pub workflows: WorkflowLoad,
}

impl Load {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Page of the tasks that depend on a task, lowest key first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependentsPage {
    pub task: TaskKey,
    /// Exclusive lower bound of the dependents' keys.
    pub after: TaskKey,
    /// Inclusive upper bound of them.
    pub until: TaskKey,
    pub limit: usize,
}

/// First page of the keys of the tasks that wait for an object, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitsPage {
    pub key: WaitsKey,
    pub limit: usize,
}

/// Place of a ready task in its route: its rank, then its key. The lowest is first.
pub type Place = (i64, TaskKey);

/// Place among the ready tasks of several routes.
pub type RoutePlace = (RouteId, i64, TaskKey);

/// Page of the ready tasks of a route, first place first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyPage {
    pub route: RouteId,
    /// Exclusive lower bound; `None` for the first page.
    pub after: Option<Place>,
    pub limit: usize,
    /// Whether payloads are read too, for assignments, up to [`Load::payload_bytes`].
    pub payloads: bool,
}

#[derive(Debug, Clone)]
pub struct TaskRow {
    pub key: TaskKey,
    pub id: TaskId,
    pub task: Stored<Task>,
    /// Whether stored tasks depend on it.
    pub has_dependents: bool,
}

/// Row of a ready task, with its rank and payload.
#[derive(Debug, Clone)]
pub struct ReadyRow {
    pub rank: i64,
    pub row: TaskRow,
    /// The payload, if it was requested and is within the bound.
    pub payload: Option<Bytes>,
}

/// Row of an idempotency key.
#[derive(Debug, Clone)]
pub struct IdempotencyRow {
    pub id: TaskId,
    /// The task; `None` once it was removed.
    pub task: Option<TaskRow>,
}

/// Result of a load. Pages are in the order of the request, one for each.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    pub ids: Vec<(ScopedId, TaskRow)>,
    pub tasks: Vec<TaskRow>,
    pub payloads: Vec<(TaskKey, Bytes)>,
    pub results: Vec<(TaskKey, Bytes)>,
    pub secrets: Vec<(TaskKey, Bytes)>,
    pub waiting: Vec<(TaskKey, RouteId)>,
    pub dependencies: Vec<(ScopedId, StateRow)>,
    pub aliases: Vec<(NameKey, StateRow)>,
    pub dependents: Vec<Vec<TaskRow>>,
    pub idempotency_keys: Vec<(NameKey, IdempotencyRow)>,
    pub threads: Vec<(NameKey, Stored<Thread>)>,
    pub documents: Vec<(DocumentKey, Stored<Document>)>,
    pub waits: Vec<Vec<TaskKey>>,
    pub sessions: Vec<(SessionKey, SessionRow)>,
    pub ready: Vec<Vec<ReadyRow>>,
    /// Due tasks, earliest deadline first.
    pub due: Vec<TaskRow>,
    pub expired: ExpiredRows,
    /// How many of the tasks of [`Load::logs`] are on the page.
    pub logs: usize,
    pub workflows: WorkflowLoaded,
}

/// What one write changes, atomically. Removals happen before additions of the same kind.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Revision of the shard before the write. A write on another revision fails with [`Error::Deposed`].
    pub before: u64,
    /// Revision of the shard after the write; always larger.
    pub revision: u64,
    pub now: Timestamp,
    /// Highest id of a route that was ever assigned.
    pub last_route: u32,
    /// Times that queue timeouts do not count, if they have changed: all of them.
    pub away: Option<Vec<Span>>,
    /// New tasks, with their payloads.
    pub inserted: Vec<(Arc<Task>, RouteId, Bytes)>,
    pub updated: Vec<(Arc<Task>, RouteId)>,
    /// Tasks to remove with everything that belongs to them, except their idempotency keys, which become orphans.
    pub removed: Vec<Arc<Task>>,
    /// Tasks to remove like those, whose record cannot be decoded.
    pub discarded: Vec<TaskKey>,
    /// Tasks whose record cannot be decoded: kept, but neither ready nor due any more.
    pub undecodable: Vec<TaskKey>,
    pub results: Vec<(TaskKey, Bytes)>,
    /// Lists of artifacts; each replaces that of its key.
    pub artifacts: Vec<(ArtifactsKey, Bytes)>,
    pub secrets: Vec<(TaskKey, Bytes)>,
    pub removed_secrets: Vec<TaskKey>,
    /// New log entries of one task, with their revision.
    pub log: Vec<(u64, TaskKey, Arc<[Event]>)>,
    pub routes: Vec<(RouteId, Route)>,
    pub removed_routes: Vec<RouteId>,
    pub aliases: Vec<(NameKey, TaskKey)>,
    pub idempotency_keys: Vec<(NameKey, TaskId, TaskKey)>,
    pub removed_keys: Vec<NameKey>,
    pub threads: Vec<(NameKey, Thread)>,
    pub removed_threads: Vec<NameKey>,
    /// Tasks that wait for a missing object.
    pub waits: Vec<(WaitsKey, TaskKey)>,
    /// Tasks that no longer wait for an object.
    pub removed_waits: Vec<(WaitsKey, TaskKey)>,
    /// Tasks that need another task: the other one, then the dependent.
    pub edges: Vec<(TaskKey, TaskKey)>,
    /// Dependents that have ended, and need no other task any more.
    pub removed_dependents: Vec<TaskKey>,
    pub agents: Vec<Arc<Agent>>,
    pub removed_agents: Vec<(Namespace, AgentName)>,
    pub cool_downs: Vec<Arc<CoolDown>>,
    pub removed_cool_downs: Vec<CredentialKey>,
    pub accounts: Vec<Arc<Account>>,
    pub documents: Vec<Arc<Document>>,
    pub removed_documents: Vec<DocumentKey>,
    pub sessions: Vec<Session>,
    pub removed_sessions: Vec<SessionKey>,
    /// New or continued follow-ups, by their number.
    pub follow_ups: Vec<(u64, FollowUp)>,
    pub removed_follow_ups: Vec<u64>,
    pub workflows: WorkflowChanges,
}

impl Changes {
    /// Whether space becomes free by it, or a task has ended, now or later: worth the reserve of a full volume.
    pub fn end_something(&self) -> bool {
        let ended = |(task, _): &(Arc<Task>, RouteId)| task.state.is_final();
        !self.workflows.removed.is_empty()
            || !self.removed.is_empty()
            || !self.discarded.is_empty()
            || !self.removed_secrets.is_empty()
            || !self.removed_documents.is_empty()
            || self.updated.iter().any(ended)
    }

    /// Whether there is anything to write.
    pub fn has_rows(&self) -> bool {
        let counts = [
            self.inserted.len(),
            self.updated.len(),
            self.removed.len(),
            self.discarded.len(),
            self.undecodable.len(),
            self.results.len(),
            self.artifacts.len(),
            self.secrets.len(),
            self.removed_secrets.len(),
            self.log.len(),
            self.routes.len(),
            self.removed_routes.len(),
            self.aliases.len(),
            self.idempotency_keys.len(),
            self.removed_keys.len(),
            self.threads.len(),
            self.removed_threads.len(),
            self.waits.len(),
            self.removed_waits.len(),
            self.edges.len(),
            self.removed_dependents.len(),
            self.agents.len(),
            self.removed_agents.len(),
            self.cool_downs.len(),
            self.removed_cool_downs.len(),
            self.accounts.len(),
            self.documents.len(),
            self.removed_documents.len(),
            self.sessions.len(),
            self.removed_sessions.len(),
            self.follow_ups.len(),
            self.removed_follow_ups.len(),
        ];
        counts.into_iter().any(|count| count > 0) || self.workflows.has_rows()
    }
}

/// Returns the deadline by which a task is found in the database. Those of tasks on workers are in memory.
pub fn stored_due(task: &Task) -> Option<Timestamp> {
    if task.state.is_on_worker() { None } else { task.due() }
}

/// What a write returns once it is durable.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Earliest deadline of [`stored_due`] among all tasks.
    pub next_due: Option<Timestamp>,
}

/// Connection of the shard's only writer.
pub trait Backend: Send + 'static {
    /// Reads committed rows, in one round trip.
    fn load(&mut self, load: &Load) -> Result<Loaded, Error>;
    /// Makes changes durable, all or none, in one round trip: if the shard's revision is the expected one.
    fn write(&mut self, changes: &Changes) -> Result<Written, Error>;
    /// Returns the state that is kept in memory.
    fn snapshot(&mut self) -> Result<Snapshot, Error>;
    /// Returns the revision of the shard.
    fn stored_revision(&mut self) -> Result<u64, Error> {
        Ok(self.snapshot()?.revision)
    }
    /// Checks that this writer still owns the shard, before a batch is answered that writes nothing.
    fn confirm(&mut self) -> Result<(), Error> {
        Ok(())
    }
    /// Keeps a function to call when the shard is found to be lost without a call: the next one fails then.
    fn on_lost(&mut self, _notify: Box<dyn Fn() + Send + Sync>) {}
}

/// Concurrent reads of committed data, one method per read of [`crate::Store`]. Blocking.
pub trait Reader: SearchIndex + 'static {
    /// Reads that make progress at the same time; further ones only block their threads.
    fn concurrency(&self) -> usize;
    fn task(&self, id: &ScopedId) -> Result<Option<Task>, Error>;
    fn newest(&self, alias: &NameKey) -> Result<Option<Task>, Error>;
    fn thread(&self, name: &NameKey) -> Result<Option<Thread>, Error>;
    fn threads(&self, after: &NameKey, limit: usize) -> Result<Vec<(NameKey, Thread)>, Error>;
    fn workflows(&self, query: &WorkflowQuery) -> Result<WorkflowRows, Error>;
    fn document(&self, key: &DocumentKey) -> Result<Option<Document>, Error>;
    fn documents(&self, page: &DocumentsPage) -> Result<Documents, Error>;
    fn bodies(&self, body: TaskBody, keys: &[TaskKey], bytes: u64) -> Result<Vec<(TaskKey, Bytes)>, Error>;
    /// Returns the lists of artifacts with these keys, in order.
    fn artifacts(&self, keys: ArtifactsKeys, limit: usize) -> Result<Vec<ArtifactsRow>, Error>;
    fn secrets(&self, after: TaskKey, limit: usize) -> Result<Vec<SealedSecrets>, Error>;
    fn list(&self, filter: &Filter) -> Result<Page, Error>;
    fn events(&self, key: TaskKey, after: u64, budget: Budget) -> Result<Vec<Event>, Error>;
    fn feed(&self, after: u64, budget: Budget) -> Result<FeedPage, Error>;
    fn revision(&self) -> Result<u64, Error>;
    fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error>;
    fn stats(&self, routes: &[RouteId]) -> Result<StoreStats, Error>;
    fn snapshot(&self) -> Result<Snapshot, Error>;
    /// Returns the room of the store; `None` if it has no files.
    fn space(&self) -> Result<Option<StoreSpace>, Error>;
    fn replicas(&self) -> Result<Vec<Replica>, Error> {
        Ok(Vec::new())
    }
    /// Returns the state of the database; `None` if the store is a file.
    fn database_status(&self) -> Result<Option<DatabaseStatus>, Error> {
        Ok(None)
    }
    /// Writes a consistent copy, which commits do not wait for, and returns it: a file that nothing else has.
    fn backup(&self) -> Result<File, Error>;
}
