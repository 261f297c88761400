//! Durable storage of tasks: the [`Store`] trait, its commands and records, the engine behind every store, an in-memory
//! store, and a conformance suite.
//!
//! A store persists and does not decide: every rule is in `rota-core`. This crate knows nothing of the wire format, of
//! workers' streams, or of SQL.
//!
//! # Main types
//!
//! - [`Store`] is what the control plane uses. [`Store::apply`] executes a batch of [`Command`]s in one transaction and
//!   returns a [`Reply`] or a [`Refused`] for each. [`Store::dry_run`] does the same and writes nothing.
//! - [`Commit`] is what a transaction changed. [`Store::commits`] streams them in order to one reader.
//! - [`engine::Engine`] executes batches over a [`Backend`]: it loads what a batch needs in one call, applies the core's
//!   rules in memory, runs follow-ups (dependents, cycles, limits of agents) on at most 256 tasks, and writes in one call;
//!   later commits continue the others.
//! - [`single_writer::SingleWriterStore`] turns an engine and a [`Reader`] into a [`Store`]: one writer thread with group
//!   commit, and concurrent reads.
//! - [`search::SearchIndex`] is the full-text index of the tasks of a store: derived, and behind the commits.
//! - [`memory::InMemoryStore`] is the reference implementation of [`Backend`] and [`Reader`].
//!
//! # Data flow
//!
//! A call of [`Store::apply`] is queued for the writer thread. The writer gathers the calls that arrived while the last
//! commit ran, executes them as one batch, and makes it durable. Then it sends the [`Commit`] to the reader, and only then
//! the replies: answered means durable, and durable means published, in that order. If a transaction fails, nothing of its
//! batch has happened, and the engine reloads what it keeps in memory.
//!
//! The engine also derives facts that a reader of commits could not derive from records alone: ends of attempts
//! ([`AttemptEnded`]), waits in the queue ([`QueueLeft`]), and usage ([`UsageAdded`]). Each is reported in exactly one
//! commit, so that metrics, spans and circuit breakers keep no ledgers of their own.
//!
//! # Adding a store
//!
//! Implement [`Backend`] and [`Reader`] for the database (two calls that take arrays, and plain reads), start a
//! [`single_writer::SingleWriterStore`] over them, and run `rota_store::conformance!` on it. `rota-store-sqlite` is an
//! example, and its differential tests compare a store with the in-memory one.
//!
//! Start reading with `engine/mod.rs`, then `engine/write_set.rs`.

mod backend;
pub mod codec;
mod commit;
pub mod conformance;
mod document;
pub mod engine;
mod expired;
mod file_lock;
mod filter;
mod follow_up;
mod given;
mod groups;
mod logs;
pub mod memory;
mod records;
mod removal;
mod replica;
mod reruns;
mod reused_lists;
mod rows;
mod sealed;
pub mod search;
pub mod single_writer;
pub mod snapshot;
mod space;
#[cfg(test)]
mod stored_fields;
mod thread;
mod tick;
pub mod transfer;
mod workflow_filter;
mod workflow_new;
mod workflows;

use std::fs::File;

use async_trait::async_trait;
use bytes::Bytes;
use rota_core::task::{Event, Task};
use rota_core::{RouteId, TaskKey};
use tokio::sync::mpsc;

use search::{ChangedTexts, IndexUpdate, SearchQuery};

pub use backend::{
    AccountKey, ArtifactsKey, ArtifactsKeys, ArtifactsRow, Backend, Changes, CredentialKey, DependentsPage,
    IdempotencyRow, Load, Loaded, NameKey, Place, Reader, ReadyPage, ReadyRow, RoutePlace, ScopedId,
    SessionKey, Stored, THREAD_TTL, TaskRow, WaitsKey, WaitsPage, Written, stored_due,
};
pub use commit::{
    AccountChange, AgentChange, AttemptEnded, Commit, CoolDownChange, Dispatch, DocumentChange, Previous,
    QueueLeft, TaskChange, UsageAdded,
};
pub use document::{Document, DocumentKey, DocumentKind, Documents, DocumentsPage, Expected, PutDocument};
pub use expired::{ExpiredPage, ExpiredPlace, ExpiredRow, ExpiredRows, PassedRows};
pub use file_lock::{FileLock, LockError};
pub use filter::{Filter, Page};
pub use follow_up::{FollowUp, TaskHold, WaitKey};
pub use given::{Given, Work};
pub use groups::{GROUP_WINDOW, GroupKey, GroupMember, WORKFLOW_MEMBER};
pub use logs::{LogSize, LogsPage};
pub use records::{
    Budget, Claim, Command, CoolDownEnd, Create, EndSession, FeedEntry, FeedPage, OpenSession, Prune,
    PutAgent, Refused, Reply, Resumed, Session, Span, StoreStats, TaskBody, encoded_size,
};
pub use removal::{Removal, RemovalPage};
pub use replica::{DatabaseStatus, Replica, Standbys};
pub use reruns::Reruns;
pub use reused_lists::{input_files, reused_item, reused_list, reused_lists};
pub use rows::{SessionRow, StateRow, StepRow, WorkflowRow};
pub use sealed::{Reseal, SealedSecrets};
pub use snapshot::{DamagedObject, OnWorker, Snapshot};
pub use space::StoreSpace;
pub use thread::Thread;
pub use tick::Tick;
pub use workflow_filter::WorkflowFilter;
pub use workflow_new::{AddStep, CreateWorkflow, Need, NewStep};
pub use workflows::{
    Action, NewRound, StepKey, StepPage, StepTasksPage, TaskPlace, WORKFLOW_OUTPUT, WorkflowChanges,
    WorkflowCommand, WorkflowLoad, WorkflowLoaded, WorkflowQuery, WorkflowRows, WorkflowScopedId, place_of,
    reused_results, step_items, stored_end, stored_task_end,
};

/// Failure of a store. Nothing of the batch has happened, except where the outcome of its commit is not known: the message of
/// [`Error::Unavailable`] reports that, or the error is one that ends the writer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Temporary, or until a person intervenes, for example with a full disk.
    #[error("the store is unavailable: {message}")]
    Unavailable { message: String, hint: &'static str },
    /// Stored data cannot be decoded.
    #[error("stored data is corrupt: {0}")]
    Corrupt(String),
    /// The disk or the database failed during a commit: only a restart shows what is durable, and restores memory from it.
    #[error("a commit was interrupted: {0}")]
    LostSync(String),
    /// Another control plane has taken over the data: this one must not write any more.
    #[error("another control plane has taken over the store")]
    Deposed,
    /// The lease of this control plane has ended, and whether another one has taken over the data is not known.
    #[error(
        "the database was not reached for as long as the lease of this control plane lasts: the outcome of calls that were under way is not known"
    )]
    LeaseLost,
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Whether the writer has ended: a restart recovers the committed data.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::LostSync(_) | Self::Deposed | Self::LeaseLost | Self::Closed)
    }
}

/// Beginning of an open store in the history of its commits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opening {
    /// Revision at which it was opened: later commits are its own.
    pub revision: u64,
    /// Revision that the store had before, if it has lost the commits up to there, such as in a failover of its database.
    pub lost: Option<u64>,
}

/// Durable store of tasks, their logs, agents and sessions.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Executes commands in order in one transaction, possibly shared with other calls. Each command has its own
    /// reply. A reply means that the transaction is durable.
    async fn apply(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error>;

    /// Executes commands like [`Store::apply`], without urgency: they share the next commit, or have their own soon.
    async fn apply_lazily(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error>;

    /// Replies to a batch as [`Store::apply`] would, alone on the committed state, and changes nothing.
    async fn dry_run(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error>;

    /// Returns the stream of commits from now on, in order. There is one reader: a second call returns `None`. The
    /// reader must keep receiving until the store is closed, or drop the receiver: a full channel stops the writer.
    /// The stream ends with the store; if it ends without [`Store::close`], the writer has failed and the store
    /// replies to nothing.
    fn commits(&self) -> Option<mpsc::Receiver<Commit>>;

    /// Returns where this store was opened.
    fn opening(&self) -> Opening;

    /// State that a control plane keeps in memory. The writer does not wait for it: a reader of the commits skips those that
    /// the snapshot contains, by their revision.
    async fn snapshot(&self) -> Result<Snapshot, Error>;

    async fn task(&self, id: ScopedId) -> Result<Option<Task>, Error>;

    /// Returns the newest task of an alias.
    async fn newest(&self, alias: NameKey) -> Result<Option<Task>, Error>;

    /// Returns a thread of tasks.
    async fn thread(&self, name: NameKey) -> Result<Option<Thread>, Error>;

    /// Returns threads with later names than `after`, by namespace and name.
    async fn threads(&self, after: NameKey, limit: usize) -> Result<Vec<(NameKey, Thread)>, Error>;

    /// Reads workflows, their steps and their tasks.
    async fn workflows(&self, query: WorkflowQuery) -> Result<WorkflowRows, Error>;

    async fn document(&self, key: DocumentKey) -> Result<Option<Document>, Error>;

    /// Returns documents of one kind, by namespace and name.
    async fn documents(&self, page: DocumentsPage) -> Result<Documents, Error>;

    /// Returns the payload of a task.
    async fn payload(&self, key: TaskKey) -> Result<Option<Bytes>, Error>;

    /// Returns the result of a task.
    async fn result(&self, key: TaskKey) -> Result<Option<Bytes>, Error>;

    /// Returns the payloads or the results of tasks, in the order of their keys here. The read ends with the one with which it has this many
    /// bytes, and has at least one if there is any.
    async fn bodies(
        &self,
        body: TaskBody,
        keys: Vec<TaskKey>,
        bytes: u64,
    ) -> Result<Vec<(TaskKey, Bytes)>, Error>;

    /// Returns the lists of artifacts with these keys, in order.
    async fn artifacts(&self, keys: ArtifactsKeys, limit: usize) -> Result<Vec<ArtifactsRow>, Error>;

    /// Returns the sealed secrets of tasks with later keys than `after`, lowest first.
    async fn secrets(&self, after: TaskKey, limit: usize) -> Result<Vec<SealedSecrets>, Error>;

    /// Returns tasks, newest first. A page ends after a bounded number of rows, also of those that do not fit: it may have
    /// few tasks, or none, and a token.
    async fn list(&self, filter: Filter) -> Result<Page, Error>;

    /// Returns the tasks of the index that have the words of a query, newest first. Some may have been removed since.
    async fn search(&self, query: SearchQuery) -> Result<Vec<TaskKey>, Error>;

    /// Returns the tasks whose texts at most so many entries of the log of all tasks after a revision have changed.
    async fn changed_texts(&self, after: u64, entries: usize) -> Result<ChangedTexts, Error>;

    /// Returns the revision that the index is complete up to; `None` if there is no index.
    async fn indexed_revision(&self) -> Result<Option<u64>, Error>;

    /// Changes the index. Returns whether it was complete up to the expected revision; otherwise nothing has happened.
    async fn update_index(&self, update: IndexUpdate) -> Result<bool, Error>;

    /// Returns tasks of the index with larger keys, smallest first.
    async fn indexed_keys(&self, after: TaskKey, limit: usize) -> Result<Vec<TaskKey>, Error>;

    /// Returns a task's log after a position. An entry is an event.
    async fn events(&self, key: TaskKey, after: u64, budget: Budget) -> Result<Vec<Event>, Error>;

    /// Returns the log of all tasks after a revision. An entry is what one commit added to one task's log.
    async fn feed(&self, after: u64, budget: Budget) -> Result<FeedPage, Error>;

    /// Returns the last revision of the log of all tasks.
    async fn revision(&self) -> Result<u64, Error>;

    /// Returns how many ready tasks of a route have a lower rank.
    async fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error>;

    /// Returns counts for metrics, with the first ready task of each of these routes.
    async fn stats(&self, routes: Vec<RouteId>) -> Result<StoreStats, Error>;

    /// Returns the room of the store; `None` if it has no files.
    async fn space(&self) -> Result<Option<StoreSpace>, Error>;

    /// Returns the replicas that share the store, its owner first; none if it cannot be shared.
    async fn replicas(&self) -> Result<Vec<Replica>, Error>;

    /// Returns the state of the database; `None` if the store is a file.
    async fn database_status(&self) -> Result<Option<DatabaseStatus>, Error>;

    /// Writes a consistent copy, which commits do not wait for, and returns it: a file that nothing else has.
    async fn backup(&self) -> Result<File, Error>;

    /// Completes the pending calls, then closes. Each caller waits for the end, also of a close that another one has
    /// begun or given up.
    async fn close(&self);
}
