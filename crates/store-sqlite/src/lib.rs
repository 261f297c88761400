//! SQLite store: the embedded, durable implementation of `rota_store::Store` for one control plane.
//!
//! Knows SQL and no rule: those are the engine's (`rota-store`) and the core's (`rota-core`).
//!
//! # Main types
//!
//! - [`open()`] opens a database file and returns a [`Sqlite`] store: it takes the file lock, checks the integrity, migrates
//!   the schema, and starts the writer thread.
//! - [`Writer`] is the single write connection, the store's `Backend`.
//! - [`Readers`] is a pool of read-only connections, the store's `Reader`, and its `SearchIndex`, in a file of its own (`search.rs`).
//!
//! # Durability
//!
//! The database runs in WAL mode with `synchronous=FULL`: a commit is on the disk before it is acknowledged. After a failed
//! sync it is unknown what reached the disk, so the writer ends; a restart recovers the committed data. The file
//! lock (`<database>.lock`) keeps a second process out, since the engine keeps state in memory. A reserve of space
//! (`<database>.reserve`) is given back when the volume is full, for what frees space: start, results and removals.
//!
//! # Schema
//!
//! `src/migrations/*.sql` has the schema. Records are MessagePack with field names, so that later versions can add fields
//! without a migration; what is searched for (state, route, rank, deadline, end) has its own columns and partial indexes.
//! `sql.rs` names every statement, as HOT (normal operation: must not scan a table) or COLD (start-up, metrics), and tests
//! check the query plan of each.
//!
//! # Changing it
//!
//! A new statement belongs in `sql.rs`. A new table or index is a further migration, never a change of an existing one; add
//! it to the list in `migrate.rs`. The conformance suite, the differential tests against the in-memory store, and the test
//! that kills the process run on every change.
//!
//! Start reading with `writer.rs`, then `sql.rs`.

mod backup;
mod disk;
mod documents;
mod list;
mod loads;
mod lock;
mod migrate;
mod open;
mod readers;
mod search;
mod snapshot;
mod sql;
#[cfg(test)]
mod tests;
mod transfer;
mod workflow_pages;
mod workflows;
mod writer;

use std::path::PathBuf;

use rota_store::Error;
use rota_store::engine::Engine;
use rota_store::single_writer::{Clock, SingleWriterStore};
use rota_store::transfer::Counts;

pub use readers::Readers;
pub use writer::Writer;

pub struct Options {
    /// The database file; created if missing. Its directory must exist.
    pub path: PathBuf,
    pub clock: Clock,
    /// Source of span ids and jitter.
    pub seed: u64,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("path", &self.path).finish_non_exhaustive()
    }
}

pub type Sqlite = SingleWriterStore<Readers>;

/// Opens a store: locks the file, checks it, migrates its schema, and starts the writer. Blocking.
pub fn open(options: Options) -> Result<Sqlite, Error> {
    let (writer, readers) = open::open(&options.path, disk::free_bytes)?;
    SingleWriterStore::start(Engine::new(writer, options.seed)?, readers, options.clock)
}

/// Checks that a file is an intact database of a store, without changing it. Blocking.
pub fn check(path: &std::path::Path) -> Result<(), Error> {
    backup::check(path)
}

/// Puts a backup in place of a database that no process has open. An existing one is lost, or an error without `replace`.
/// Blocking.
pub fn restore(backup: &std::path::Path, database: &std::path::Path, replace: bool) -> Result<(), Error> {
    backup::restore(backup, database, replace)
}

/// Exports a database that no process has open. Blocking.
pub fn export(database: &std::path::Path, to: &mut dyn std::io::Write) -> Result<Counts, Error> {
    transfer::export(database, to)
}

/// Imports into a new or empty database that no process has open: everything, or nothing. Blocking.
pub fn import(database: &std::path::Path, from: &mut dyn std::io::BufRead) -> Result<Counts, Error> {
    transfer::import(database, from)
}

/// Opens the connections alone, for tests and benchmarks of the store itself. Blocking.
pub fn open_connections(path: &std::path::Path) -> Result<(Writer, Readers), Error> {
    open::open(path, disk::free_bytes)
}
