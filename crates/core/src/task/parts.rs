//! Small parts of the task record.

use serde::{Deserialize, Serialize};

use crate::WorkerName;

/// Session of a runtime that an ended attempt left on a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSession {
    pub worker: WorkerName,
    /// Name that the runtime gave it.
    pub session: String,
}

/// Accepted answer to an input request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Id of the input request.
    pub request: String,
    pub fingerprint: u64,
    /// Position among the task's inputs.
    pub seq: u64,
}

/// Assignment that its worker did not accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub worker: WorkerName,
    pub reason: String,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Completed fraction, from 0 to 1.
    pub fraction: f64,
    pub step: String,
}
