//! A worker's session with the control plane. The loop is in `worker`, a single attempt in `attempt`.
//! Knows nothing of what a runtime does.

mod attempt;
mod checkpoints;
mod clone_progress;
mod commands;
mod confinement;
mod connect;
mod continuing;
mod declared;
mod deps;
mod disconnected;
mod earlier;
mod environment;
mod fetching;
mod git_settings;
mod handle;
mod heartbeat;
mod inbound;
mod model_access;
mod out_of_memory;
mod outbound;
mod outbox;
mod outgoing;
mod prepare;
mod previous_results;
mod private_modes;
mod readiness;
mod redact;
mod releasing;
mod result;
mod result_schema;
mod secrets;
mod setup_cache;
mod spans;
mod spill;
mod start;
mod stopping;
mod storing;
mod streaming;
mod time_limits;
mod undelivered;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use confinement::Paths;
pub use outbound::PROTOCOL_VERSION;
pub(crate) use readiness::{MIN_FREE_DISK, MIN_FREE_MEMORY};
use rota_client::RenewableChannel;
use rota_proto::v1::runtime;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::artifacts::Caller;
use crate::prices::Prices;
use crate::runtimes::Runtime;
use crate::runtimes::claude::{Claude, DEFAULT_PROGRAM};
use crate::runtimes::command::Command;
use crate::runtimes::scripted::Scripted;

/// Default of [`Options::checkpoint_interval`]: what is lost with a worker.
pub(crate) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(180);
/// Default of [`Options::delivery_timeout`], in which most hosts are back.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);
/// Default of [`Options::storing_timeout`], in which a storage that was restarted is back.
pub(crate) const STORING_TIMEOUT: Duration = Duration::from_secs(60);
/// Default of [`Options::orphan_timeout`].
pub(crate) const ORPHAN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Default of [`Options::keep_workspaces`], in which people come back to what an agent has left for them.
pub(crate) const KEEP_WORKSPACES: Duration = Duration::from_hours(30 * 24);

/// Options of a worker, with the channel that it connects through.
#[derive(Debug, Clone)]
pub struct Options {
    /// Channel to the control plane, with TLS and keepalive configured.
    pub channel: RenewableChannel,
    /// Bearer token for the control plane.
    pub token: Option<SecretString>,
    /// File with the token, used instead of `token` and read for every session, since such tokens are rotated.
    pub token_file: Option<PathBuf>,
    pub namespace: String,
    pub agent: String,
    /// Name of the worker, unique in the namespace.
    pub worker: String,
    /// Id of this process, generated at each start. Set only by tests.
    pub instance: String,
    /// Maximum number of concurrent attempts.
    pub slots: usize,
    /// Capabilities in addition to the agent's.
    pub capabilities: Vec<String>,
    /// Id of the only task to accept, for a worker that was started for it; empty for any.
    pub isolated_task: String,
    /// Directory of workspaces, scratch files and spilled events.
    pub state_dir: PathBuf,
    /// File that the supervisors of this worker's programs hold a shared lock on; by default one in `state_dir`. Shows the
    /// component that started the worker when none of its programs is left.
    pub supervisors_lock: Option<PathBuf>,
    /// Directory of the agent's secrets, with a file per variable, read for every attempt.
    pub secrets_dir: Option<PathBuf>,
    /// Whether attempts are not confined even where that is supported.
    pub unconfined: bool,
    /// Further files and directories that confined attempts may read.
    pub allow_read: Vec<PathBuf>,
    /// Further directories that confined attempts may write.
    pub allow_write: Vec<PathBuf>,
    /// Further directories that confined attempts must not open, as they must not the worker's own.
    pub private: Vec<PathBuf>,
    /// Time after its last use for which a workspace is kept.
    pub keep_workspaces: Duration,
    /// Bytes of disk in `state_dir` without which the worker takes no attempts.
    pub min_free_disk: u64,
    /// Bytes of the machine's memory without which the worker takes no attempts.
    pub min_free_memory: u64,
    /// Time without a control plane after which running attempts are ended.
    pub orphan_timeout: Duration,
    /// Time for which an attempt delivers its work to hosts that do not respond, after which later attempts deliver it.
    pub delivery_timeout: Duration,
    /// Time for which an attempt stores its files with its slot.
    pub storing_timeout: Duration,
    /// Whether `state_dir` is lost with this process: the control plane does not wait for another one of its name.
    pub temporary_state: bool,
    /// Whether the worker takes no attempts, and ends once what earlier processes of its name have left is stored.
    pub only_store: bool,
    /// Time between checkpoints of an attempt; zero for none.
    pub checkpoint_interval: Duration,
    /// Whether the checkpoints of attempts that have succeeded are not kept.
    pub discard_conversations: bool,
    /// Claude Code CLI of agents that name none; by default `claude` on the PATH.
    pub claude_program: Option<PathBuf>,
    /// File with prices of models, which precede the list prices.
    pub prices_file: Option<PathBuf>,
    /// Version of the worker's software, for example `rota/0.1.0`.
    pub version: String,
    /// Runtimes by kind of task.
    pub runtimes: Runtimes,
    /// Second stage of a shutdown: when cancelled, running attempts are ended.
    pub stop_now: CancellationToken,
}

impl Options {
    /// Returns what makes calls outside the session.
    pub(crate) fn caller(&self) -> Caller {
        let token = match (&self.token_file, &self.token) {
            (Some(path), _) => rota_client::Token::File(path.clone()),
            (None, Some(token)) => rota_client::Token::Fixed(token.clone()),
            (None, None) => rota_client::Token::None,
        };
        Caller { channel: self.channel.clone(), token, worker: self.worker.clone() }
    }

    /// Creates options with one slot and defaults for the rest.
    pub fn new(
        channel: RenewableChannel,
        namespace: &str,
        agent: &str,
        worker: &str,
        state_dir: PathBuf,
    ) -> Self {
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
            supervisors_lock: None,
            secrets_dir: None,
            unconfined: false,
            allow_read: Vec::new(),
            allow_write: Vec::new(),
            private: Vec::new(),
            keep_workspaces: KEEP_WORKSPACES,
            min_free_disk: MIN_FREE_DISK,
            min_free_memory: MIN_FREE_MEMORY,
            orphan_timeout: ORPHAN_TIMEOUT,
            delivery_timeout: DELIVERY_TIMEOUT,
            storing_timeout: STORING_TIMEOUT,
            temporary_state: false,
            only_store: false,
            checkpoint_interval: CHECKPOINT_INTERVAL,
            discard_conversations: false,
            claude_program: None,
            prices_file: None,
            version: concat!("rota/", env!("CARGO_PKG_VERSION")).to_owned(),
            runtimes: Runtimes::default(),
            stop_now: CancellationToken::new(),
        }
    }

    /// Returns the paths that confine attempts.
    fn paths(&self) -> Paths {
        let own = [Some(&self.state_dir), self.secrets_dir.as_ref(), self.token_file.as_ref()];
        let search = rota_telemetry::env::var_os("PATH").unwrap_or_default();
        Paths {
            private: own.into_iter().flatten().chain(&self.private).cloned().collect(),
            read: self.allow_read.clone(),
            write: self.allow_write.clone(),
            search: std::env::split_paths(&search).collect(),
            program: self.claude_program.clone().unwrap_or_else(|| DEFAULT_PROGRAM.into()),
            home: rota_telemetry::env::user_home(),
        }
    }

    /// Returns why attempts are not isolated, if they are not.
    fn not_isolated(&self) -> Option<String> {
        if self.unconfined {
            return Some("the worker was started with --unconfined".to_owned());
        }
        crate::supervise::unsupported_jail()
    }

    /// Runs the worker until it is drained: by the control plane, or because `shutdown` is cancelled.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        if !crate::workspace::is_name(&self.worker) {
            return Err(Error::Name(self.worker));
        }
        if let Some(path) = &self.prices_file {
            let prices = Prices::with_file(path)?;
            self.runtimes.claude =
                self.runtimes.claude.map(|_| Arc::new(Claude::new().with_prices(prices)) as _);
        }
        worker::Worker::new(self)?.run(shutdown).await
    }
}

/// Reason why a worker ends without having been drained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane rejects it permanently.
    #[error("the control plane rejected this worker: {message} ({code:?})")]
    Refused {
        /// `FailedPrecondition`, `InvalidArgument`, `Unauthenticated` or `PermissionDenied`.
        code: tonic::Code,
        /// Message of the control plane.
        message: String,
    },
    /// Another process has taken its name.
    #[error("another process has taken the name of worker {0}; its attempts here were ended")]
    Replaced(String),
    /// Another process of its name has its directory.
    #[error(
        "another process of worker {worker} runs in the state directory {path}; choose another name with --worker, or another \
         directory with --state-dir",
        path = path.display()
    )]
    Running { worker: String, path: PathBuf },
    /// Its token was revoked, and the token file has no other one.
    #[error("the token of worker {0} was revoked; its attempts here were ended")]
    Revoked(String),
    #[error("invalid worker name {0:?}: use letters, digits, `-` and `.`")]
    Name(String),
    /// Its state directory is unusable.
    #[error("failed to use the state directory {path}: {source}", path = path.display())]
    State {
        path: PathBuf,
        /// Error of the file system.
        source: std::io::Error,
    },
    #[error(transparent)]
    Prices(#[from] crate::prices::Error),
}

/// Runtimes by kind. Tasks of a kind that is missing are rejected, so that another worker gets them.
#[derive(Clone)]
pub struct Runtimes {
    /// Runtime for the Claude Code CLI.
    pub claude: Option<Arc<dyn Runtime>>,
    pub command: Option<Arc<dyn Runtime>>,
    pub scripted: Option<Arc<dyn Runtime>>,
    /// Runtime of an embedding program; Rota has none.
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
    /// Returns the runtime for a task's kind.
    fn of(&self, kind: Option<&runtime::Kind>) -> Option<&Arc<dyn Runtime>> {
        match kind? {
            runtime::Kind::Claude(_) => self.claude.as_ref(),
            runtime::Kind::Command(_) => self.command.as_ref(),
            runtime::Kind::Scripted(_) => self.scripted.as_ref(),
            runtime::Kind::External(_) => self.external.as_ref(),
        }
    }
}
