//! The embedded store: SQLite with full durability (WAL, `synchronous=FULL`), one writer thread
//! and readers beside it. Knows SQL, and no rule: those are the engine's and the core's.
#![warn(missing_docs)]

mod lock;
mod open;
mod reads;
mod rows;
mod sql;
mod tables;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use rota_store::Error;
use rota_store::embedded::{Clock, Embedded};
use rota_store::engine::Engine;

pub use reads::Readers;
pub use tables::Writer;

/// How to open a store.
pub struct Options {
    /// The database file; made when it does not exist. Its folder must exist.
    pub path: PathBuf,
    /// Gives the time.
    pub clock: Clock,
    /// Feeds span ids and jitter.
    pub seed: u64,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("path", &self.path).finish_non_exhaustive()
    }
}

/// An SQLite store.
pub type Sqlite = Embedded<Readers>;

/// Opens a store: locks the file, checks it, brings its schema up to date, starts the writer. Blocking.
pub fn open(options: Options) -> Result<Sqlite, Error> {
    let (writer, readers) = open::open(&options.path)?;
    Embedded::start(Engine::new(writer, options.seed)?, readers, options.clock)
}

/// Opens the tables alone, for tests and benchmarks of the store itself. Blocking.
pub fn open_tables(path: &std::path::Path) -> Result<(Writer, Readers), Error> {
    open::open(path)
}
