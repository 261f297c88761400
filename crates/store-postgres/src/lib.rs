//! PostgreSQL store: an implementation of `rota_store::Store` for a control plane whose state outlives its machine.
//!
//! Knows SQL and no rule: those are the engine's (`rota-store`) and the core's (`rota-core`).
//!
//! # Main types
//!
//! - [`open()`] connects to a [`Target`], checks the server, migrates the schema, takes the shard over, and returns a [`Postgres`]
//!   store.
//! - [`Writer`] is the write connection of the shard's owner, the store's `Backend`.
//! - [`Readers`] is a bounded pool of connections, the store's `Reader`, and its `SearchIndex` (`search.rs`).
//!
//! # Ownership
//!
//! One control plane owns the shard (`lease.rs`). Each commit begins with a statement that fails unless the epoch and the revision
//! of the shard are the expected ones, so that a process that was replaced changes nothing, whatever it believes about the time. A
//! lease by the clock of the database decides when another process may take the shard over and raise the epoch. A server that a
//! failover has replaced is refused by its timeline (`timeline.rs`).
//!
//! # Durability
//!
//! A commit is one transaction with `synchronous_commit=on`, sent in one piece, and counts once all of its answers were read
//! (`commit.rs`). If the connection is lost meanwhile, the next one raises the epoch, reads the revision, and the commit is
//! known to be made or is repeated (`connection.rs`). If the database is away for longer, its caller is refused; a commit that is
//! found to be made after that ends the writer, since no watcher was notified of it. A warning that comes with a commit counts as a lost connection: a synchronous
//! standby may not have it.
//!
//! # Schema
//!
//! `src/migrations/*.sql` has the schema. All keys begin with the shard. Records are encoded as in SQLite (`rota_store::codec`).
//! `sql.rs` names every statement; all take arrays, and a test checks the plan of each.
//!
//! # Changing it
//!
//! A new statement belongs in `sql.rs`. A new table or index is a further migration, never a change of an existing one: add it to
//! the list in `migrate.rs`, with additions that the previous version can run with: an owner of that one continues while a newer
//! replica migrates, unless the migration writes records, and takes the shard from it first. The conformance suite, the differential
//! tests, and the tests that kill processes and sessions run on every change.
//!
//! Start reading with `connection.rs`, then `commit.rs` and `lease.rs`.

mod clock;
mod commit;
mod connection;
mod documents;
mod errors;
mod first;
mod floors;
mod lease;
mod list;
mod loads;
mod migrate;
mod outcomes;
mod ownership;
mod readers;
mod rows;
mod search;
mod seen_lease;
mod session;
mod snapshot;
mod sql;
mod statements;
mod status;
mod steady;
mod takeover;
mod target;
mod timeline;
mod transfer;
mod workflow_pages;
mod workflows;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use rota_store::engine::Engine;
use rota_store::single_writer::{Clock, SingleWriterStore};
use rota_store::{Document, DocumentKey, Error};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use first::OnAway;
pub use lease::{OnWait, Owner};
pub use readers::Readers;
pub use target::{PasswordSource, Target, is_url};
pub use transfer::{export, import};
pub use writer::Writer;

use crate::lease::Replica;
use crate::takeover::Wait;

/// Judges the document of a store, if it exists.
type Judge = dyn Fn(Option<&Document>) -> Result<(), Error> + Send + Sync;

/// A check of a control plane before it waits for the database, and while it waits: whether a document of the store, once it exists,
/// fits it.
#[derive(Clone)]
pub struct Admission {
    pub document: DocumentKey,
    pub check: Arc<Judge>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("document", &self.document).finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub struct Options {
    pub target: Target,
    /// Name of this control plane, for messages to those that wait for it.
    pub name: String,
    pub version: String,
    /// Where other control planes reach this one, as `HOST:PORT`; empty if they do not.
    pub address: String,
    /// Longest wait for another control plane that owns the database; `None` waits without a limit.
    pub patience: Option<Duration>,
    pub on_wait: OnWait,
    pub admission: Option<Admission>,
    /// Time for which a database that is away is waited for at the start.
    pub connect_timeout: Duration,
    pub on_away: OnAway,
    /// Ends the wait, with [`Error::Closed`].
    pub stop: CancellationToken,
    /// Largest number of connections for reads.
    pub readers: usize,
    /// Source of span ids and jitter.
    pub seed: u64,
}

impl Options {
    pub fn new(target: Target, name: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            target,
            name: name.to_owned(),
            version,
            address: String::new(),
            patience: None,
            on_wait: Arc::new(|_| {}),
            admission: None,
            connect_timeout: Duration::ZERO,
            on_away: Arc::new(|_| {}),
            stop: CancellationToken::new(),
            readers: 4,
            seed: 0,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("target", &self.target)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

pub type Postgres = SingleWriterStore<Readers>;

/// An open store, which this process owns.
pub struct Opened {
    pub store: Postgres,
    pub clock: Clock,
    /// Id of the database, which a copy of it elsewhere does not have.
    pub database: String,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("database", &self.database).finish_non_exhaustive()
    }
}

/// Opens a store, with the time of the database or a clock of the caller's. Blocking, while another control plane owns the
/// database.
pub fn open(options: Options, clock: Option<Clock>) -> Result<Opened, Error> {
    on_own_thread(|| {
        let seed = options.seed;
        let (writer, readers) = connect(options)?;
        let clock = clock.unwrap_or_else(|| writer.clock());
        let database = readers.database()?;
        let lost = writer.lost();
        let store = SingleWriterStore::start(Engine::new(writer, seed)?, readers, Arc::clone(&clock))?;
        let store = store.having_lost(lost);
        Ok(Opened { store, clock, database })
    })
}

/// Opens the connections alone, for tests and benchmarks of the store itself. Blocking.
pub fn open_connections(options: Options) -> Result<(Writer, Readers), Error> {
    on_own_thread(|| connect(options))
}

/// Calls a function on a thread of its own: that of the caller may belong to a runtime, in which nothing may block.
fn on_own_thread<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope.spawn(call).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn connect(options: Options) -> Result<(Writer, Readers), Error> {
    let shared = Arc::new(Shared::new()?);
    shared.block_on(first::check(&options))?;
    let Options {
        target, name, version, address, patience, on_wait, admission, on_away, stop, readers, ..
    } = options;
    let replica = Replica { id: Uuid::new_v4(), name, version, address };
    let pool = Readers::new(&target, readers, Arc::clone(&shared))?;
    let wait = Wait { patience, on_wait, on_away, admission, stop };
    Ok((Writer::take_over(target, replica, &wait, shared)?, pool))
}

/// Runtime of the readers and of the lease's timer, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Shared {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Shared {
    fn new() -> Result<Self, Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("rota-store-postgres");
        Ok(Self { runtime: Some(session::runtime(builder)?) })
    }

    pub(crate) fn block_on<T, E>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        E: From<Error>,
    {
        match &self.runtime {
            Some(runtime) => runtime.block_on(call),
            None => Err(E::from(Error::Closed)),
        }
    }

    /// Calls a function that starts tasks in this runtime.
    pub(crate) fn enter<T>(&self, start: impl FnOnce() -> T) -> T {
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        start()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Does not wait: the thread that drops it may belong to another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
