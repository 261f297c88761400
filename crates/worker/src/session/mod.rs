//! A worker's session with the control plane: what it is made of, and how it is run. The loop is in
//! `worker`, one attempt in `attempt`; nothing here knows what a runtime does.

mod attempt;
mod connect;
mod environment;
mod heartbeat;
mod inbound;
mod outbound;
mod outbox;
mod redact;
mod secrets;
mod shared;
mod spans;
mod spill;
mod verdict;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rota_proto::v1::runtime;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::runtimes::Runtime;
use crate::runtimes::claude::Claude;
use crate::runtimes::command::Command;
use crate::runtimes::scripted::Scripted;

/// Default of [`Options::orphan_timeout`].
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A worker.
#[derive(Debug, Clone)]
pub struct Options {
    /// The control plane. Connects lazily; keepalive and TLS are set by whoever made it.
    pub channel: Channel,
    /// Proves who the worker is.
    pub token: Option<SecretString>,
    /// Instead of `token`: a file that is read anew for each session, since such tokens are rotated.
    pub token_file: Option<PathBuf>,
    /// Namespace of its agent.
    pub namespace: String,
    /// The agent it serves.
    pub agent: String,
    /// Its name, unique in the namespace.
    pub worker: String,
    /// Names this process. Made anew at each start; a fixed one is for tests.
    pub instance: String,
    /// Attempts at a time.
    pub slots: usize,
    /// Capabilities beyond its agent's.
    pub capabilities: Vec<String>,
    /// Id of the one task that it was started for; empty for any that fits.
    pub isolated_task: String,
    /// Where attempts work.
    pub state_dir: PathBuf,
    /// The agent's secrets, a file each, named like its variable; read anew for each attempt.
    pub secrets_dir: Option<PathBuf>,
    /// How long it goes on without a control plane.
    pub orphan_timeout: Duration,
    /// The Claude Code CLI, for agents that name none; else it is looked for on the PATH.
    pub claude_program: Option<PathBuf>,
    /// Its software, for example `rota/0.1.0`.
    pub version: String,
    /// Version of its agent program.
    pub runtime_version: String,
    /// How it does tasks.
    pub runtimes: Runtimes,
    /// The second stage of a shutdown: ends running attempts, too.
    pub stop_now: CancellationToken,
}

impl Options {
    /// A worker with one slot and defaults for the rest.
    pub fn new(channel: Channel, namespace: &str, agent: &str, worker: &str, state_dir: PathBuf) -> Self {
        Self {
            channel,
            token: None,
            token_file: None,
            namespace: namespace.to_owned(),
            agent: agent.to_owned(),
            worker: worker.to_owned(),
            instance: uuid::Uuid::new_v4().to_string(),
            slots: 1,
            capabilities: Vec::new(),
            isolated_task: String::new(),
            state_dir,
            secrets_dir: None,
            orphan_timeout: ORPHAN_TIMEOUT,
            claude_program: None,
            version: concat!("rota/", env!("CARGO_PKG_VERSION")).to_owned(),
            runtime_version: String::new(),
            runtimes: Runtimes::default(),
            stop_now: CancellationToken::new(),
        }
    }

    /// Serves until it is drained: by the control plane, or because `shutdown` is cancelled.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        if !crate::workspace::is_name(&self.worker) {
            return Err(Error::Name(self.worker));
        }
        worker::Worker::new(self)?.run(shutdown).await
    }
}

/// Why a worker ends without having been drained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane does not take it.
    #[error("the control plane refuses this worker: {message} ({code:?})")]
    Refused {
        /// `FailedPrecondition`, `InvalidArgument`, `Unauthenticated` or `PermissionDenied`.
        code: tonic::Code,
        /// What it says.
        message: String,
    },
    /// Another process has joined under its name.
    #[error("another process has joined as the worker {0}; what ran here has been ended")]
    Replaced(String),
    /// Its name cannot be used.
    #[error("{0:?} cannot be a worker's name: use letters, digits, `-` and `.`")]
    Name(String),
    /// Its directory cannot be used.
    #[error("the state directory {path} cannot be used: {source}", path = path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// How a worker does tasks. A kind that is missing is rejected, so that the task goes elsewhere.
#[derive(Clone)]
pub struct Runtimes {
    /// The Claude Code CLI.
    pub claude: Option<Arc<dyn Runtime>>,
    /// Any program.
    pub command: Option<Arc<dyn Runtime>>,
    /// Scripts.
    pub scripted: Option<Arc<dyn Runtime>>,
    /// Somebody else's own; none of ours.
    pub external: Option<Arc<dyn Runtime>>,
}

impl Default for Runtimes {
    fn default() -> Self {
        Self {
            claude: Some(Arc::new(Claude::new())),
            command: Some(Arc::new(Command::new())),
            scripted: Some(Arc::new(Scripted::new())),
            external: None,
        }
    }
}

impl std::fmt::Debug for Runtimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtimes")
            .field("claude", &self.claude.is_some())
            .field("command", &self.command.is_some())
            .field("scripted", &self.scripted.is_some())
            .field("external", &self.external.is_some())
            .finish()
    }
}

impl Runtimes {
    /// The one that a task wants.
    fn of(&self, kind: Option<&runtime::Kind>) -> Option<&Arc<dyn Runtime>> {
        match kind? {
            runtime::Kind::Claude(_) => self.claude.as_ref(),
            runtime::Kind::Command(_) => self.command.as_ref(),
            runtime::Kind::Scripted(_) => self.scripted.as_ref(),
            runtime::Kind::External(_) => self.external.as_ref(),
        }
    }
}
