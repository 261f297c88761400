//! Runs an attempt's program under a supervisor process of its own, so that every descendant can be
//! found and ended, including those that left the process group, even when the worker is killed.
//! Knows nothing of tasks.
//!
//! "Orphan" has two meanings here, by the parent that is lost:
//!
//! - The orphans of a program ([`Exit::orphans`], the notice `orphans` of an attempt) are descendants that outlive it.
//!   Its supervisor finds, kills and counts them.
//! - The orphans of a supervisor (the module `orphans`) are all processes below one that was killed itself. The worker
//!   adopts and kills them; nothing counts them.

mod control_group;
mod environment;
mod group;
mod jail;
mod limits;
mod link;
mod orphans;
mod protocol;
mod stop;
mod stuck;
mod supervisor;
pub(crate) mod tree;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};

pub use control_group::{delegate, not_delegated};
pub use environment::Environment;
pub use group::Group;
pub use jail::{Jail, unsupported as unsupported_jail};
pub use stop::Stop;
pub(crate) use stop::stopped;
pub use stuck::stuck;
pub use supervisor::supervisor_main;

use protocol::Request;

/// Hidden subcommand under which a program calls [`supervisor_main`].
pub const SUBCOMMAND: &str = "__supervise";

/// Program to run, with its environment and working directory.
#[derive(Debug)]
pub struct Program {
    /// Path, or a name that is looked up in the PATH of `environment`.
    pub program: String,
    pub args: Vec<String>,
    /// Complete environment; nothing is inherited.
    pub environment: Environment,
    pub directory: PathBuf,
}

/// Exit of a program, reported by its supervisor once none of its processes is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, unless a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// Number of orphans of the program: descendants that outlived it and were killed.
    pub orphans: u32,
}

/// Stage of the escalation that ended a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// It had already ended, or ended on SIGINT or the runtime's own interrupt.
    Interrupt,
    Terminate,
    /// It had to be killed with SIGKILL.
    Kill,
}

impl EndedBy {
    /// Returns the value of `Cancelled.by` in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Terminate => "terminate",
            Self::Kill => "kill",
        }
    }
}

/// Reason why a program did not start, or its exit is unknown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program or its supervisor did not start.
    #[error("failed to start {program}: {source}")]
    Start { program: String, source: std::io::Error },
    /// Its processes have not ended by SIGKILL.
    #[error("processes cannot be ended: {0}")]
    Stuck(String),
    /// The supervisor ended without reporting the program's exit.
    #[error("supervisor lost: {0}")]
    Lost(String),
}

/// Command that runs the supervisor: by default this very binary with [`SUBCOMMAND`].
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

impl Default for Supervisor {
    fn default() -> Self {
        // Resolved by the kernel in the child itself, hence right even after the file was replaced.
        Self { program: PathBuf::from("/proc/self/exe"), args: vec![SUBCOMMAND.into()] }
    }
}

static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();

impl Supervisor {
    /// Makes this the supervisor of the whole process; the first call wins. For tests, whose own binary has
    /// no such subcommand.
    pub fn install(self) {
        let _ = SUPERVISOR.set(self);
    }

    pub(crate) fn installed() -> Self {
        SUPERVISOR.get().cloned().unwrap_or_default()
    }
}

/// A running program. Dropping it ends all of its processes.
#[derive(Debug)]
pub struct Running {
    /// Standard input; drop to close.
    pub stdin: Option<ChildStdin>,
    /// Standard output, which ends when no process of the program is left.
    pub stdout: Option<ChildStdout>,
    pub stderr: Option<ChildStderr>,
    pid: i32,
    requests: mpsc::UnboundedSender<Request>,
    end: watch::Receiver<Option<link::End>>,
}

/// Starts a program under a supervisor. A program started in an attempt's own task is paused and resumed
/// with its attempt.
pub async fn start(program: Program) -> Result<Running, Error> {
    link::start(program).await
}

impl Running {
    /// Returns the program's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the program has ended and none of its processes is left.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        self.ended().await.map(|(exit, _)| exit)
    }

    /// Ends the program: SIGINT, then SIGTERM after a third of the grace period, then SIGKILL for every
    /// descendant after two thirds. Returns when no process is left.
    pub async fn end(&mut self, grace: Duration) -> Result<(Exit, EndedBy), Error> {
        // Fails only if the program has ended already.
        let _ = self.requests.send(Request::End { grace_ms: protocol::millis(grace) });
        self.ended().await
    }

    async fn ended(&mut self) -> Result<(Exit, EndedBy), Error> {
        match self.end.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(end))) => Ok(*end),
            Ok(Some(Err(link::Unknown::Lost(reason)))) => Err(Error::Lost(reason.clone())),
            Ok(Some(Err(link::Unknown::Stuck(processes)))) => Err(Error::Stuck(processes.clone())),
            Ok(None) | Err(_) => Err(Error::Lost("the worker is shutting down".to_owned())),
        }
    }
}
