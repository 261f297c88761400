//! What keeps tasks: the store trait and its records, the engine that carries out batches of
//! commands over any set of tables, and an in-memory twin. A store persists and does not decide:
//! every rule is in `rota-core`. Knows nothing of the wire, of sessions' streams or of SQL.
#![warn(missing_docs)]

pub mod conformance;
pub mod embedded;
pub mod engine;
pub mod memory;
mod records;
mod tables;

use async_trait::async_trait;
use bytes::Bytes;
use rota_core::task::{Event, Task};
use rota_core::{Namespace, RouteId, TaskId};
use tokio::sync::mpsc;

pub use records::{
    AgentChange, Claim, Command, Commit, Create, Dispatch, EndSession, FeedEntry, Figures, Filter,
    OpenSession, Page, Previous, Prune, PutAgent, Refused, Reply, Resumed, Session, Snapshot, TaskChange,
};
pub use tables::{Reads, Tables, WaitKey};

/// The store cannot do its work. Nothing of the batch has happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// For now or until a person does something, for example a full disk.
    #[error("the store is not available: {message}")]
    Unavailable {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// What is stored cannot be read.
    #[error("the store holds something that cannot be read: {0}")]
    Corrupt(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Keeps tasks, their logs, agents and sessions. Cheap to clone behind an `Arc`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Carries out commands, in order, in one transaction (perhaps with others'). Each is answered
    /// by itself. An answer means that the transaction is durable.
    async fn apply(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error>;

    /// Like [`Store::apply`] for what need not hurry: it rides on the next commit, or makes one of its own soon.
    async fn apply_lazily(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error>;

    /// Answers a batch as [`Store::apply`] would, alone on what is committed, and changes nothing.
    async fn rehearse(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error>;

    /// What every commit changed, in order, from now on. There is one reader: the second call gets `None`.
    /// It must read on, or drop the receiver, until the store is closed: a full channel holds up the writer. It ends
    /// with the store; an end that nobody asked for is a fault, after which the store answers nothing.
    fn commits(&self) -> Option<mpsc::Receiver<Commit>>;

    /// Everything that a control plane keeps in memory.
    async fn snapshot(&self) -> Result<Snapshot, Error>;

    /// A task's record.
    async fn task(&self, id: TaskId) -> Result<Option<Task>, Error>;

    /// Id of the newest task of an alias.
    async fn newest(&self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error>;

    /// What was handed in with a task.
    async fn payload(&self, id: TaskId) -> Result<Option<Bytes>, Error>;

    /// What a task brought.
    async fn result(&self, id: TaskId) -> Result<Option<Bytes>, Error>;

    /// Tasks, newest first.
    async fn list(&self, filter: Filter) -> Result<Page, Error>;

    /// A task's log after a position, at most `limit` entries (a few more where one commit made them together).
    async fn events(&self, id: TaskId, after: u64, limit: usize) -> Result<Vec<Event>, Error>;

    /// The log of all tasks after a revision, at most `limit` entries.
    async fn feed(&self, after: u64, limit: usize) -> Result<Vec<FeedEntry>, Error>;

    /// Last revision of the log of all tasks.
    async fn revision(&self) -> Result<u64, Error>;

    /// How many ready tasks of a route go before this rank.
    async fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error>;

    /// What is counted for metrics, with the heads of these routes' queues.
    async fn figures(&self, routes: Vec<RouteId>) -> Result<Figures, Error>;

    /// Finishes what was asked for, then closes.
    async fn close(&self);
}
