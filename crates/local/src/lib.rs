//! What the operator does with pods, done with processes of one machine: keeps as many workers of
//! each managed agent as its demand asks for. It is only a client of the API, never opens a store,
//! and never polls: agents and demand come as streams.

mod backoff;
mod child;
mod manager;
mod pool;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rota_client::Client;
use rota_telemetry::Loops;
use tokio_util::sync::CancellationToken;

/// What it needs to be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The control plane.
    pub client: Client,
    /// `namespaces/{namespace}`, or `namespaces/-` for all.
    pub parent: String,
    /// The program that is a worker, usually this one.
    pub program: PathBuf,
    /// Its arguments before those that name a worker: for example `worker`.
    pub arguments: Vec<OsString>,
    /// Where workers keep their workspaces and logs.
    pub state_dir: PathBuf,
    /// How long workers may take to end when all of them shall.
    pub stop_grace: Duration,
    /// Where its own loop is noted.
    pub loops: Loops,
}

/// Why it ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot be used.
    #[error("{} cannot be used for the workers' files: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The control plane does not let it watch.
    #[error("agents and demand cannot be watched: {0}")]
    Watch(#[from] rota_client::Error),
}

impl Options {
    /// Keeps the pools until `shutdown`, then ends every worker and waits for them.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        manager::Manager::new(self)?.run(shutdown).await
    }
}
