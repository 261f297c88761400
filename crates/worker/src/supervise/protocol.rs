//! Protocol between a worker and a supervisor: one JSON object per line. The program's secrets travel
//! here and nowhere else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Jail;
use super::control_group::ControlGroup;

/// Path of the worker's socket.
pub(super) const SOCKET_VAR: &str = "ROTA_SUPERVISE_SOCKET";
/// Token by which the supervisor authenticates itself.
pub(super) const TOKEN_VAR: &str = "ROTA_SUPERVISE_TOKEN";

/// Request from the worker. No `Debug`: it carries secrets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Starts the program; first, and once.
    Run(Box<Run>),
    Pause,
    Resume,
    /// Ends every process within the grace period.
    End {
        grace_ms: u64,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    /// Absent if the program is not confined.
    pub(super) jail: Option<Jail>,
    /// Absent if the worker's control group is not delegated.
    pub(super) control_group: Option<ControlGroup>,
    /// Files on which the supervisor holds a shared lock until none of the program's processes is left.
    pub(super) locks: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Response {
    /// Authenticates the supervisor; its first message.
    Hello {
        token: String,
    },
    Started {
        pid: i32,
    },
    /// The program could not be started.
    Refused {
        errno: Option<i32>,
        message: String,
    },
    /// Signals have not ended these processes. The supervisor keeps trying, and reports the end if it comes.
    Stuck {
        processes: String,
    },
    /// The program has ended and none of its processes is left.
    Ended {
        code: Option<i32>,
        signal: Option<i32>,
        orphans: u32,
        by: Stage,
    },
}

/// Stage of the escalation that ends a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Interrupt,
    Terminate,
    Kill,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Encodes a message as a line.
pub(super) fn line<T: Serialize>(message: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
