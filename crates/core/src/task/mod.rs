//! A task's record: all that scheduling must know of it. Prompts, environments and results are
//! payloads that the record does not hold.

mod apply;
mod command;
mod create;
mod dependency;
mod event;
pub mod explain;
mod input;
mod run;
mod state;
mod update;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use command::{Command, Ending, Held, Item, Meaning, Rejected, Reply, Transition, WorkerRef};
pub use create::{New, create};
pub use dependency::{Dependency, DependencyKey, DependencyState, OnFailure};
pub use event::{Body, Event, StateChange};
pub use state::{Desired, State};

use crate::failure::Failure;
use crate::rank::{self, Priority};
use crate::target::{Route, Target};
use crate::usage::Usage;
use crate::{AgentName, Epoch, Fence, Namespace, TaskId, Timestamp, WorkerName, retry};

/// An assignment that is not taken within this time goes back.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than a grace the control plane waits for a worker to say that an attempt has ended.
pub const CONFIRM_SLACK: Duration = Duration::from_secs(30);

/// Total time of a task for which nobody sets one.
pub const TIMEOUT: Duration = Duration::from_secs(3600);
/// Grace of a task for which nobody sets one.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Bounds of a task, as far as a task or an agent sets them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// From the first attempt's start to the end of the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Longest time from ready to started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Duration>,
    /// Between the request to end and the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_grace: Option<Duration>,
}

impl Limits {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Trace ids of a task (<https://www.w3.org/TR/trace-context/>), made at its creation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trace {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The task's own span.
    pub span_id: [u8; 8],
    /// The caller's span; zero when there was none.
    pub parent_id: [u8; 8],
    /// Whether the caller records the trace.
    pub sampled: bool,
    /// The caller's `tracestate`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
}

/// The assignment of a task to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The worker.
    pub worker: WorkerName,
    /// The worker's session when it was last known to have the attempt.
    pub epoch: Epoch,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it was assigned.
    pub at: Timestamp,
    /// The attempt's span.
    pub span_id: [u8; 8],
    /// Highest `attempt_seq` in the log.
    #[serde(default)]
    pub attempt_seq: u64,
    /// What the attempt has used so far.
    #[serde(default, skip_serializing_if = "Usage::is_zero")]
    pub usage: Usage,
    /// Questions that wait for an answer: id and encoded `InputRequest`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_input: Vec<(String, Bytes)>,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: f64,
    /// What is being done now.
    pub step: String,
}

/// A runtime's session that an ended attempt left, with the worker that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSession {
    /// The worker.
    pub worker: WorkerName,
    /// The runtime's name of it.
    pub session: String,
}

/// An answer that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The question's id.
    pub request: String,
    /// What was answered, as a number: the same answer has the same.
    pub fingerprint: u64,
    /// Its position among the task's inputs.
    pub seq: u64,
}

/// An assignment that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// By whom.
    pub worker: WorkerName,
    /// What is known of why.
    pub reason: String,
}

fn none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

/// A task's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// A short name of the caller's choice.
    #[serde(default, skip_serializing_if = "none")]
    pub alias: Option<String>,
    /// A line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// The task that it is a part of.
    #[serde(default, skip_serializing_if = "none")]
    pub parent: Option<TaskId>,
    /// The task that it tries again.
    #[serde(default, skip_serializing_if = "none")]
    pub retry_of: Option<TaskId>,
    /// Words for finding it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who may do it.
    pub target: Target,
    /// How urgent it is.
    pub priority: Priority,
    /// What the caller wants to become of it.
    #[serde(default)]
    pub desired: Desired,
    /// Its own bounds. What counts is told by [`Task::timeout`], [`Task::queue_timeout`] and [`Task::cancel_grace`].
    pub limits: Limits,
    /// The bounds that its agent sets: the one it names, once it exists; else that of the worker that has it.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub defaults: Limits,
    /// When it is tried again.
    pub retry: retry::Policy,
    /// Not before this time; forgotten when it has come.
    #[serde(default, skip_serializing_if = "none")]
    pub not_before: Option<Timestamp>,
    /// Tasks that must end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// Its trace.
    pub trace: Trace,
    /// Whether its agent exists; true when it names none.
    pub agent_known: bool,

    /// Where it stands.
    pub state: State,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it became ready; kept when a worker is lost.
    #[serde(default, skip_serializing_if = "none")]
    pub ready_at: Option<Timestamp>,
    /// When its first attempt was taken.
    #[serde(default, skip_serializing_if = "none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "none")]
    pub ended_at: Option<Timestamp>,
    /// Not tried again before this time.
    #[serde(default, skip_serializing_if = "none")]
    pub retry_at: Option<Timestamp>,
    /// When a cancelled or overdue run counts as ended though its worker has not said so.
    #[serde(default, skip_serializing_if = "none")]
    pub confirm_by: Option<Timestamp>,
    /// Attempts that a worker has taken.
    #[serde(default)]
    pub attempts: u32,
    /// The last token given.
    #[serde(default)]
    pub fence: Fence,
    /// The highest fence whose ending the log tells of, be it accepted or noted as stale.
    #[serde(default)]
    pub stale_noted: Fence,
    /// The worker that has it.
    #[serde(default, skip_serializing_if = "none")]
    pub assignment: Option<Assignment>,
    /// The worker that had it last.
    #[serde(default, skip_serializing_if = "none")]
    pub last_worker: Option<WorkerName>,
    /// Failed attempts that count.
    #[serde(default)]
    pub failures: u32,
    /// Throttled attempts.
    #[serde(default)]
    pub waits: u32,
    /// Lost workers.
    #[serde(default)]
    pub worker_losses: u32,
    /// Assignments in a row that were not taken.
    #[serde(default)]
    pub refusals: u32,
    /// The last of these.
    #[serde(default, skip_serializing_if = "none")]
    pub refusal: Option<Refusal>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "none")]
    pub progress: Option<Progress>,
    /// What ended attempts have used.
    #[serde(default, skip_serializing_if = "Usage::is_zero")]
    pub usage: Usage,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "none")]
    pub failure: Option<Failure>,
    /// With what a next attempt could go on.
    #[serde(default, skip_serializing_if = "none")]
    pub session: Option<RuntimeSession>,
    /// Inputs given so far.
    #[serde(default)]
    pub inputs: u64,
    /// The last answers taken, so that each can be repeated by whoever did not hear that it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<Answered>,
    /// Last position of its log.
    #[serde(default)]
    pub log_seq: u64,
    /// Whether secrets are kept for it.
    #[serde(default)]
    pub has_secrets: bool,
    /// Whether a result is kept for it.
    #[serde(default)]
    pub has_result: bool,
}

impl Task {
    /// Where it waits when it is ready.
    pub fn route(&self) -> Route {
        Route { namespace: self.namespace.clone(), target: self.target.clone() }
    }

    /// The agent that it names, if it names one.
    pub fn agent(&self) -> Option<&AgentName> {
        self.target.agent()
    }

    /// Its place among ready tasks: lowest goes first.
    pub fn rank(&self) -> i64 {
        rank::rank(self.ready_at.unwrap_or(self.created_at), self.priority)
    }

    /// Number of the current or last attempt; 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.assignment.as_ref().map_or(self.attempts, |assignment| assignment.attempt)
    }

    /// What all attempts have used, the running one included.
    pub fn total_usage(&self) -> Usage {
        self.assignment.as_ref().map_or_else(|| self.usage.clone(), |a| self.usage.plus(&a.usage))
    }

    /// From the first attempt's start to the end of the last.
    pub fn timeout(&self) -> Duration {
        self.limits.timeout.or(self.defaults.timeout).unwrap_or(TIMEOUT)
    }

    /// Longest time from ready to started; `None` for as long as it takes.
    pub fn queue_timeout(&self) -> Option<Duration> {
        self.limits.queue_timeout.or(self.defaults.queue_timeout)
    }

    /// Between the request to end and the kill.
    pub fn cancel_grace(&self) -> Duration {
        self.limits.cancel_grace.or(self.defaults.cancel_grace).unwrap_or(CANCEL_GRACE)
    }

    /// When its time is over: known once an attempt has started.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.started_at.map(|started| started + self.timeout())
    }

    /// When [`Command::Tick`] next has something to do; `None` for a task that only waits for others.
    /// A task on a worker always has such a time.
    pub fn due(&self) -> Option<Timestamp> {
        fn earliest<const N: usize>(times: [Option<Timestamp>; N]) -> Option<Timestamp> {
            times.into_iter().flatten().min()
        }
        match self.state {
            State::Pending => earliest([
                self.not_before,
                self.retry_at,
                self.deadline().filter(|_| self.retry_at.is_some()),
                self.queue_deadline(),
            ]),
            State::Queued => earliest([self.queue_deadline(), self.deadline()]),
            State::Assigned => {
                let taken_by = self.assignment.as_ref().map(|a| a.at + ACCEPT_TIMEOUT);
                earliest([taken_by, self.confirm_by])
            }
            State::Running | State::InputRequired => {
                earliest([self.deadline().map(|d| d + self.cancel_grace() + CONFIRM_SLACK), self.confirm_by])
            }
            State::Succeeded | State::Failed | State::Cancelled => None,
        }
    }

    /// When it has waited too long for its start. A task that has started once keeps its place when its worker
    /// is lost, and must not pay for the time that it ran.
    fn queue_deadline(&self) -> Option<Timestamp> {
        if self.started_at.is_some() {
            return None;
        }
        Some(self.ready_at? + self.queue_timeout()?)
    }

    /// The latest time that the record itself tells of.
    fn last_known_time(&self) -> Timestamp {
        let assigned = self.assignment.as_ref().map(|assignment| assignment.at);
        [self.ready_at, self.started_at, self.ended_at, assigned]
            .into_iter()
            .flatten()
            .fold(self.created_at, Ord::max)
    }
}
