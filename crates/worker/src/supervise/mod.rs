//! Runs one attempt's program under a supervisor process of its own, so that every descendant can
//! be found and ended, also those that left the process group, and also when the worker is killed.
//! Knows nothing of tasks.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use crate::runtimes::Environment;

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

/// A running program. Dropping it ends everything it started.
#[derive(Debug)]
pub struct Running {
    /// Its standard input; drop to close.
    pub stdin: Option<ChildStdin>,
    /// Its standard output. Ends when nothing of the program is left.
    pub stdout: Option<ChildStdout>,
    /// Its standard error.
    pub stderr: Option<ChildStderr>,
}

/// Starts a program under a supervisor.
pub async fn start(_program: Program) -> Result<Running, Error> {
    unimplemented!()
}

impl Running {
    /// Waits until the program has ended and nothing of it is left.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        unimplemented!()
    }

    /// Ends it: SIGINT, then SIGTERM after a third of the grace, then SIGKILL for every descendant
    /// when two thirds have passed. Returns when nothing is left.
    pub async fn end(&mut self, _grace: Duration) -> Result<(Exit, EndedBy), Error> {
        unimplemented!()
    }
}
