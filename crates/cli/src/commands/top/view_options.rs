//! View options of `rota top`: which tasks are shown, in which order. Knows no watch and no terminal.

use pbjson_types::Timestamp;
use rota_core::rank::{Priority, rank as core_rank};
use rota_proto::v1::{Task, TaskState, TaskStatus};

/// Selection and order of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViewOptions {
    pub sort: Sort,
    pub show: Show,
}

/// Order of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Tasks that require input, then running tasks, then the queue in its order
    #[default]
    State,
    /// Oldest first
    Age,
    /// Most expensive first
    Cost,
}

/// Selection of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Show {
    /// All unfinished tasks
    #[default]
    All,
    /// Tasks on a worker
    Running,
    /// Tasks that wait for a slot
    Queued,
    /// Tasks that wait for something else
    Pending,
    /// Tasks that require input
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

    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Age => "age",
            Self::Cost => "cost",
        }
    }

    pub fn key(self, task: &Task) -> (i64, i64, String) {
        let status = task.status.clone().unwrap_or_default();
        let created = micros(task.create_time.as_ref());
        let (first, second) = match self {
            Self::Age => (created, 0),
            Self::Cost => (-cost(task), created),
            Self::State => match status.state() {
                TaskState::InputRequired => (0, created),
                TaskState::Running => (1, micros(status.start_time.as_ref())),
                TaskState::Assigned => (2, micros(status.ready_time.as_ref())),
                TaskState::Queued => (3, rank(task, &status)),
                _ => (4, created),
            },
        };
        (first, second, task.uid.clone())
    }
}

/// Returns the rank of a queued task, by which the scheduler orders its queue.
fn rank(task: &Task, status: &TaskStatus) -> i64 {
    let priority = task.priority.and_then(Priority::new).unwrap_or_default();
    core_rank(rota_core::Timestamp(micros(status.ready_time.as_ref())), priority)
}

/// Returns the cost of a task in millionths of a dollar.
pub fn cost(task: &Task) -> i64 {
    let usage = task.status.as_ref().and_then(|status| status.usage.as_ref());
    usage.map_or(0, |usage| usage.cost_micro_usd)
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

    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Running => "running",
            Self::Queued => "queued",
            Self::Pending => "pending",
            Self::Asking => "asking",
        }
    }

    pub fn includes(self, state: TaskState) -> bool {
        use TaskState as S;
        match self {
            Self::All => !state.is_final(),
            Self::Running => matches!(state, S::Assigned | S::Running | S::InputRequired),
            Self::Queued => state == S::Queued,
            Self::Pending => state == S::Pending,
            Self::Asking => state == S::InputRequired,
        }
    }
}
