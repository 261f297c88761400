//! What a worker and a supervisor say to each other, one JSON object a line. The program's secrets
//! travel here and nowhere else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the supervisor finds its worker.
pub(super) const SOCKET: &str = "ROTA_SUPERVISE_SOCKET";
/// By what the worker knows its supervisor.
pub(super) const TOKEN: &str = "ROTA_SUPERVISE_TOKEN";

/// From the worker. No `Debug`: it carries secrets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// First, and once.
    Run(Run),
    /// Freeze every process.
    Pause,
    /// Thaw them.
    Resume,
    /// End every process.
    End { grace_ms: u64 },
}

/// What to run.
#[derive(Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
}

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// First: proves who it is.
    Hello { token: String },
    /// The program runs.
    Started { pid: i32 },
    /// The program cannot be run.
    Refused { errno: Option<i32>, message: String },
    /// The program has ended and nothing of it is left.
    Ended { code: Option<i32>, signal: Option<i32>, strays: u32, by: Stage },
}

/// How far an end had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Interrupt,
    Terminate,
    Kill,
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One line.
pub(super) fn line<T: Serialize>(message: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
