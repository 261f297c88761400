//! Local worker manager: the counterpart of the operator for a single machine. Keeps as many worker processes per
//! managed agent as its scaling bounds and its demand require. `rota dev` runs it next to the control plane.
//!
//! It is a client of the API: it never opens the store and never polls. Agents and demand arrive as streams, process
//! exits through a channel, and a short tick covers what time alone changes (idle timeouts, restart backoff).
//!
//! # Main types
//!
//! - [`Options`] with [`Options::run`]: entry point; runs until shutdown and then stops every worker.
//! - `manager::Manager`: the event loop. Owns the pools, starts and stops processes, and reports to the control plane.
//! - `pool::Pool`: one agent's workers. Decides without I/O what should happen (`pool::DesiredWorkers`).
//! - `process::Process`: handle of one worker process. Dropping it asks the process to stop.
//! - `backoff::RestartBackoff`: delay between restarts of crashing workers.
//!
//! # Data flow
//!
//! `watch_agents`, `watch_demand`, process exits, tick → `Manager` updates the `Pool` → `Pool::desired` builds the input
//! of `rota_core::scaling` → `Manager::reconcile` starts, drains and stops processes. An idle worker is drained through
//! the API first: the control plane decides whether it is still idle, and only then is the process stopped.
//!
//! Each process holds the read end of a pipe as standard input, and reads its token from it. When the pipe closes, because the worker is stopped or
//! because this process died, the worker exits; no worker outlives its manager.
//!
//! To react to another event, add a branch to `Manager::run` and keep the decision in `Pool`, where it can be tested
//! without processes. Read `pool.rs` first, then `manager.rs`.

mod backoff;
mod manager;
mod pool;
mod process;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rota_client::Client;
use rota_telemetry::BackgroundTasks;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

/// Process of a worker that needs a token.
#[derive(Debug)]
pub struct WorkerProcess<'a> {
    pub namespace: &'a str,
    pub agent: &'a str,
    pub worker: &'a str,
    pub instance: &'a str,
    pub slots: u32,
}

type Issue = dyn Fn(&WorkerProcess<'_>) -> Result<SecretString, String> + Send + Sync;

/// Issues tokens for worker processes, or fails with a message.
#[derive(Clone)]
pub struct TokenSource(Arc<Issue>);

impl TokenSource {
    pub fn new(
        issue: impl Fn(&WorkerProcess<'_>) -> Result<SecretString, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(issue))
    }

    fn issue(&self, worker: &WorkerProcess<'_>) -> Result<SecretString, String> {
        (self.0)(worker)
    }
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSource").finish_non_exhaustive()
    }
}

/// Settings of the local worker manager.
#[derive(Debug, Clone)]
pub struct Options {
    /// Client of the control plane.
    pub client: Client,
    /// `namespaces/{namespace}`, or `namespaces/-` for all.
    pub parent: String,
    /// Program of a worker, usually the running executable.
    pub program: PathBuf,
    /// Arguments before those that identify the worker, for example `worker`.
    pub arguments: Vec<OsString>,
    /// Issues the token of each process, which the process reads from its standard input.
    pub tokens: TokenSource,
    /// Directory of workspaces and logs.
    pub state_dir: PathBuf,
    /// Grace period of each worker on shutdown.
    pub stop_grace: Duration,
    /// Registry in which the manager reports its activations.
    pub background_tasks: BackgroundTasks,
}

/// Reason for which the manager stopped before shutdown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to create the directory {} for worker logs: {source}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("failed to watch agents and demand: {0}")]
    Watch(#[from] rota_client::Error),
}

impl Options {
    /// Manages the pools until `shutdown`, then stops every worker and waits for its exit.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        manager::Manager::new(self)?.run(shutdown).await
    }
}
