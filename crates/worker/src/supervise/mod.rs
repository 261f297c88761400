//! Runs one attempt's program under a supervisor process of its own, so that every descendant can
//! be found and ended, also those that left the process group, and also when the worker is killed.
//! Knows nothing of tasks.

mod adopt;
mod group;
mod link;
mod orders;
mod supervisor;
pub(crate) mod tree;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};

pub use group::Group;
pub use supervisor::supervisor_main;

use crate::runtimes::Environment;
use orders::Order;

/// The hidden subcommand under which a program calls [`supervisor_main`].
pub const SUBCOMMAND: &str = "__supervise";

/// What to run.
#[derive(Debug)]
pub struct Program {
    /// The program: a path, or a name looked up in the environment's own PATH.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub environment: Environment,
    /// Its working directory.
    pub directory: PathBuf,
}

/// How the program ended, told by its supervisor after nothing of it was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Descendants that outlived it and were killed.
    pub strays: u32,
}

/// How an end was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// It had ended, or ended upon SIGINT (or the runtime's own interrupt).
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

impl EndedBy {
    /// The word for it in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Terminate => "terminate",
            Self::Kill => "kill",
        }
    }
}

/// Why a program cannot be run or was lost.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The supervisor ended without saying how the program did.
    #[error("the supervisor was lost: {0}")]
    Lost(String),
}

/// The program that supervises: by default this very binary with [`SUBCOMMAND`].
#[derive(Debug, Clone)]
pub struct Supervisor {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, [`SUBCOMMAND`] included.
    pub args: Vec<OsString>,
}

impl Default for Supervisor {
    fn default() -> Self {
        // Resolved by the kernel in the child itself, hence right also after the file was replaced.
        Self { program: PathBuf::from("/proc/self/exe"), args: vec![SUBCOMMAND.into()] }
    }
}

static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();

impl Supervisor {
    /// Makes this the supervisor of the whole process. The first call counts; for tests, whose own
    /// binary has no such subcommand.
    pub fn install(self) {
        let _ = SUPERVISOR.set(self);
    }

    pub(crate) fn installed() -> Self {
        SUPERVISOR.get().cloned().unwrap_or_default()
    }
}

/// A running program. Dropping it ends everything it started.
#[derive(Debug)]
pub struct Running {
    /// Its standard input; drop to close.
    pub stdin: Option<ChildStdin>,
    /// Its standard output. Ends when nothing of the program is left.
    pub stdout: Option<ChildStdout>,
    /// Its standard error.
    pub stderr: Option<ChildStderr>,
    pid: i32,
    orders: mpsc::UnboundedSender<Order>,
    end: watch::Receiver<Option<link::End>>,
}

/// Starts a program under a supervisor. Called in an attempt's own task, the program is paused and
/// resumed with its attempt.
pub async fn start(program: Program) -> Result<Running, Error> {
    link::start(program).await
}

impl Running {
    /// The program's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the program has ended and nothing of it is left.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        self.ended().await.map(|(exit, _)| exit)
    }

    /// Ends it: SIGINT, then SIGTERM after a third of the grace, then SIGKILL for every descendant
    /// when two thirds have passed. Returns when nothing is left.
    pub async fn end(&mut self, grace: Duration) -> Result<(Exit, EndedBy), Error> {
        // An error means that it has ended already.
        let _ = self.orders.send(Order::End { grace_ms: orders::millis(grace) });
        self.ended().await
    }

    async fn ended(&mut self) -> Result<(Exit, EndedBy), Error> {
        match self.end.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(end))) => Ok(*end),
            Ok(Some(Err(reason))) => Err(Error::Lost(reason.clone())),
            Ok(None) | Err(_) => Err(Error::Lost("the worker is ending".to_owned())),
        }
    }
}
