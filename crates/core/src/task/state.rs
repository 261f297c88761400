//! The states of a task, and what a caller may want of it.

use serde::{Deserialize, Serialize};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Waits for something, always with a reason.
    Pending = 1,
    /// Ready; waits for a slot.
    Queued = 2,
    /// Sent to a worker, not yet taken.
    Assigned = 3,
    /// A worker works on it.
    Running = 4,
    /// Runs, and waits for a person.
    InputRequired = 5,
    /// Ended with a result.
    Succeeded = 6,
    /// Ended without.
    Failed = 7,
    /// Ended because somebody asked for it.
    Cancelled = 8,
}

impl State {
    /// Every state.
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

    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether a worker has it.
    pub fn is_on_worker(self) -> bool {
        matches!(self, Self::Assigned | Self::Running | Self::InputRequired)
    }

    /// Its name as the API writes it.
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

/// What a caller wants to become of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It shall be done.
    #[default]
    Run,
    /// It shall not start.
    Suspended,
    /// It shall end. There is no way back.
    Cancelled,
}
