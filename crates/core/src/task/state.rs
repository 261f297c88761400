//! States of a task, and the states that a caller may request.

use serde::{Deserialize, Serialize};

/// State of a task. The numbers are stored and must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Waits for a condition that the record names.
    Pending = 1,
    /// Ready, waiting for a slot.
    Queued = 2,
    /// Sent to a worker that has not accepted it yet.
    Assigned = 3,
    Running = 4,
    /// Running, with an open input request.
    InputRequired = 5,
    Succeeded = 6,
    Failed = 7,
    /// Ended on request, or because a dependency did not succeed.
    Cancelled = 8,
}

impl State {
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Queued,
        Self::Assigned,
        Self::Running,
        Self::InputRequired,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether the task has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether the task is assigned to a worker.
    pub fn is_on_worker(self) -> bool {
        matches!(self, Self::Assigned | Self::Running | Self::InputRequired)
    }

    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Queued => "QUEUED",
            Self::Assigned => "ASSIGNED",
            Self::Running => "RUNNING",
            Self::InputRequired => "INPUT_REQUIRED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// State that a caller requests for a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    #[default]
    Run,
    /// Not started until resumed; a running attempt continues.
    Suspended,
    /// Ended as soon as possible. Irreversible.
    Cancelled,
}
