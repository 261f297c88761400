//! What a person has chosen to see in `rota top`: which tasks, in which order. Knows no watch and no terminal.

use pbjson_types::Timestamp;
use rota_client::watch::is_final;
use rota_proto::v1::{Task, TaskState, TaskStatus};

use super::model::cost;

/// What a person has chosen to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    pub sort: Sort,
    pub show: Show,
}

/// How tasks are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Those that ask first, then those that run, then the queue in its order
    #[default]
    State,
    /// The oldest first
    Age,
    /// The dearest first
    Cost,
}

/// Which tasks are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Show {
    /// All that have not ended
    #[default]
    All,
    /// Those on a worker
    Running,
    /// Those that wait for a slot
    Queued,
    /// Those that wait for something else
    Pending,
    /// Those that wait for a person
    Asking,
}

impl Sort {
    pub fn next(self) -> Self {
        match self {
            Self::State => Self::Age,
            Self::Age => Self::Cost,
            Self::Cost => Self::State,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Age => "age",
            Self::Cost => "cost",
        }
    }

    pub fn key(self, task: &Task) -> (i64, i64, String) {
        let status = task.status.clone().unwrap_or_default();
        let made = micros(task.create_time.as_ref());
        let (first, second) = match self {
            Self::Age => (made, 0),
            Self::Cost => (-cost(task), made),
            Self::State => match status.state() {
                TaskState::InputRequired => (0, made),
                TaskState::Running => (1, micros(status.start_time.as_ref())),
                TaskState::Assigned => (2, micros(status.ready_time.as_ref())),
                TaskState::Queued => (3, rank(task, &status)),
                _ => (4, made),
            },
        };
        (first, second, task.uid.clone())
    }
}

/// As the control plane ranks: a step of priority is worth a minute of waiting.
fn rank(task: &Task, status: &TaskStatus) -> i64 {
    micros(status.ready_time.as_ref()) - i64::from(task.priority.unwrap_or(5)) * 60_000_000
}

fn micros(at: Option<&Timestamp>) -> i64 {
    at.map_or(0, |at| at.seconds.saturating_mul(1_000_000) + i64::from(at.nanos) / 1000)
}

impl Show {
    pub fn next(self) -> Self {
        match self {
            Self::All => Self::Running,
            Self::Running => Self::Queued,
            Self::Queued => Self::Pending,
            Self::Pending => Self::Asking,
            Self::Asking => Self::All,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Running => "running",
            Self::Queued => "queued",
            Self::Pending => "pending",
            Self::Asking => "asking",
        }
    }

    pub fn fits(self, state: TaskState) -> bool {
        use TaskState as S;
        match self {
            Self::All => !is_final(state),
            Self::Running => matches!(state, S::Assigned | S::Running | S::InputRequired),
            Self::Queued => state == S::Queued,
            Self::Pending => state == S::Pending,
            Self::Asking => state == S::InputRequired,
        }
    }
}
