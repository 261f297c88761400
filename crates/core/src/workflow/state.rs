//! States of a workflow and of a step.

use serde::{Deserialize, Serialize};

/// State of a workflow. The numbers are stored and must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    Running = 1,
    /// No further step starts; what runs ends.
    Stopping = 2,
    Compensating = 3,
    Finalizing = 4,
    /// All steps have succeeded, and the outputs are evaluated.
    Ending = 5,
    Succeeded = 6,
    Failed = 7,
    Cancelled = 8,
    /// A compensation has failed: a person must look at it.
    CompensationFailed = 9,
}

impl State {
    pub const ALL: [Self; 9] = [
        Self::Running,
        Self::Stopping,
        Self::Compensating,
        Self::Finalizing,
        Self::Ending,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::CompensationFailed,
    ];

    /// Whether the workflow has ended.
    pub fn is_final(self) -> bool {
        self >= Self::Succeeded
    }

    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Compensating => "COMPENSATING",
            Self::Finalizing => "FINALIZING",
            Self::Ending => "ENDING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::CompensationFailed => "COMPENSATION_FAILED",
        }
    }
}

/// State of a step. The numbers are stored and must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum StepState {
    /// Steps that it needs have not ended.
    Waiting = 1,
    /// Waits for room, for the workflow to be resumed, or for its phase.
    Held = 2,
    /// Its expressions are evaluated by the driver.
    Ready = 3,
    Running = 4,
    /// Its tasks have succeeded; its condition or outputs are evaluated by the driver.
    Ending = 5,
    Succeeded = 6,
    Failed = 7,
    Skipped = 8,
    Cancelled = 9,
}

impl StepState {
    pub const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Held,
        Self::Ready,
        Self::Running,
        Self::Ending,
        Self::Succeeded,
        Self::Failed,
        Self::Skipped,
        Self::Cancelled,
    ];

    /// Whether the step has ended.
    pub fn is_final(self) -> bool {
        self >= Self::Succeeded
    }

    /// Whether the step has started and not ended.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Ready | Self::Running | Self::Ending)
    }

    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Held => "HELD",
            Self::Ready => "READY",
            Self::Running => "RUNNING",
            Self::Ending => "ENDING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::Cancelled => "CANCELLED",
        }
    }
}
