//! Sessions of workers: their record, and the commands that open and end them.

use rota_core::task::{Loss, WorkerRef};
use rota_core::{AgentName, Epoch, Fence, Namespace, TaskId, Timestamp, WorkerName};
use serde::{Deserialize, Serialize};

/// Opening of a worker's session.
#[derive(Debug, Clone)]
pub struct OpenSession {
    pub namespace: Namespace,
    pub worker: WorkerName,
    pub agent: AgentName,
    /// Identity of the worker's process.
    pub instance: String,
    /// Control-plane replica that holds the stream.
    pub replica: String,
    /// Attempts that the worker still runs.
    pub running: Vec<(TaskId, Fence)>,
    /// Last session that the worker knows of.
    pub last: Option<Epoch>,
    /// Whether it may have the name of a worker of another agent.
    pub takes_name: bool,
}

/// End of a worker's session.
#[derive(Debug, Clone)]
pub struct EndSession {
    pub namespace: Namespace,
    /// The session; rejected if the worker has a newer one.
    pub session: WorkerRef,
    /// How the worker left. A death that took several attempts along is [`Loss::Unclear`], whatever is given here.
    pub loss: Loss,
    /// When the worker was last there, if known.
    pub seen: Option<Timestamp>,
    pub message: String,
}

/// Session of a worker, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub namespace: Namespace,
    pub worker: WorkerName,
    pub agent: AgentName,
    pub epoch: Epoch,
    /// Identity of the worker's process.
    pub instance: String,
    /// Control-plane replica that holds the stream.
    pub replica: String,
    pub open: bool,
    /// When it was opened, or ended.
    pub since: Timestamp,
    /// Whether a drain of this process was requested. It ends with the session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}
