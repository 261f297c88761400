//! The task record and its state machine. The record holds what scheduling needs; prompts, environments and results
//! are stored separately, as opaque payloads.

mod apply;
mod attempt;
mod attention;
mod budget;
mod children;
mod clocks;
mod command;
mod create;
mod deliver;
mod dependency;
mod escalation;
mod event;
pub mod explain;
mod input;
mod loss;
mod parts;
mod quota;
mod release;
mod run;
mod state;
mod storing;
mod update;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use attempt::{
    Assignment, AttemptOutcome, EndedAttempt, LostAttempt, MAX_LOGGED_BYTES, MAX_LOGGED_BYTES_OF_TASK,
    MAX_LOGGED_REPORTS, Own, QueueWait,
};
pub use attention::ATTENTION;
pub use budget::{NEARLY_SPENT, NEARLY_SPENT_BY_TASK, STOPPING, Stopping, Superseded};
pub use command::{
    AttemptRef, Command, Completion, EventEffect, Grant, Item, Loss, Rejected, Reply, Transition, WorkerRef,
};
pub use create::create;
pub use deliver::Undelivered;
pub use dependency::{Dependency, DependencyKey, DependencyState, OnFailure};
pub use event::{Body, Event, StateChange};
pub use input::MAX_OPEN_REQUESTS;
pub use parts::{Answered, Progress, Refusal, RuntimeSession};
pub use release::Question;
pub use state::{Desired, State};
pub use storing::{MAX_STORING_TIME, Storing};
pub use update::Settings;

use crate::failure::Failure;
use crate::quota::{CredentialId, QuotaWait};
use crate::rank::{self, Priority};
use crate::spending::BudgetWait;
use crate::target::{Route, Target};
use crate::usage::Usage;
use crate::workflow::StepRef;
use crate::{AgentName, Fence, Namespace, TaskId, TaskKey, Timestamp, WorkerName, retry};

/// Time for a worker to accept an assignment, after which the task is queued again.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time beyond the cancellation grace for a worker to confirm the end of an attempt.
pub const CONFIRM_SLACK: Duration = Duration::from_secs(30);

pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
pub const DEFAULT_CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Limits of time and cost, as far as a task or its agent sets them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Total time of all attempts on workers, without the time for which they wait for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Longest time from ready to started, without the time in which no worker could take a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Duration>,
    /// Time between the request to stop and the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_grace: Option<Duration>,
    /// Cost of all attempts, in millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_micro_usd: Option<i64>,
}

impl Limits {
    /// Whether no limit is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// W3C trace context of a task (<https://www.w3.org/TR/trace-context/>), fixed at its creation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trace {
    pub trace_id: [u8; 16],
    /// Id of the task's own span.
    pub span_id: [u8; 8],
    /// Id of the caller's span; zero if there was none.
    #[serde(skip_serializing_if = "is_default")]
    pub parent_id: [u8; 8],
    /// Whether the trace is recorded.
    #[serde(skip_serializing_if = "is_default")]
    pub sampled: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
}

/// Whether a record leaves a field out, which has the default for every version that reads it.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Key under which the store has it; zero before its creation.
    #[serde(skip)]
    pub key: TaskKey,
    pub id: TaskId,
    pub namespace: Namespace,
    /// Short name chosen by the caller; names the newest task that has it.
    #[serde(default, skip_serializing_if = "none")]
    pub alias: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Task that this one is part of.
    #[serde(default, skip_serializing_if = "none")]
    pub parent: Option<TaskId>,
    /// Tasks that name it as their parent, or the one that it continues, oldest first. Bounded: further ones are not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<TaskId>,
    /// Thread that it belongs to: its tasks run one after the other, each continuing the conversation of those before it.
    #[serde(default, skip_serializing_if = "none")]
    pub thread: Option<String>,
    /// Place in the workflow that created it.
    #[serde(default, skip_serializing_if = "none")]
    pub step: Option<Box<StepRef>>,
    /// Time after its end after which it is removed; `None` leaves that to the retention.
    #[serde(default, skip_serializing_if = "none")]
    pub ttl: Option<Duration>,
    /// Task that this one repeats.
    #[serde(default, skip_serializing_if = "none")]
    pub retry_of: Option<TaskId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Workers that may execute it.
    pub target: Target,
    pub priority: Priority,
    #[serde(default, skip_serializing_if = "is_default")]
    pub desired: Desired,
    /// Limits of the task itself. [`Task::timeout`], [`Task::queue_timeout`] and [`Task::cancel_grace`] return the
    /// effective ones.
    pub limits: Limits,
    /// Limits of its agent: the named one, once it exists, or that of the worker it is assigned to.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub defaults: Limits,
    pub retry: retry::Policy,
    /// Earliest start; cleared once it has passed.
    #[serde(default, skip_serializing_if = "none")]
    pub not_before: Option<Timestamp>,
    /// Tasks that must end before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    pub trace: Trace,
    /// Parts of its attempts that come from the task instead of its agent.
    #[serde(default, skip_serializing_if = "Own::is_none")]
    pub own: Own,
    /// Whether it continues a task that another agent ran, or may have run: conversation and files are then its author's choice.
    #[serde(default, skip_serializing_if = "is_default")]
    pub continues_other_agent: bool,
    /// The model credential that it brings along, if any.
    #[serde(default, skip_serializing_if = "none")]
    pub credential: Option<CredentialId>,
    /// Whether its agent exists; true if it names none.
    pub agent_known: bool,
    pub state: State,
    pub created_at: Timestamp,
    /// When it became ready. Kept when an attempt fails or its worker is lost, so that the task keeps its rank.
    #[serde(default, skip_serializing_if = "none")]
    pub ready_at: Option<Timestamp>,
    /// Time since it became ready in which no worker could have taken it, as far as its queue timeout has asked for it.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub away: Duration,
    /// Time since it became ready in which it waited for a credential that cools down, or for a budget.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub cooled: Duration,
    /// The credential that it waits for, while PENDING.
    #[serde(default, skip_serializing_if = "none")]
    pub quota: Option<Box<QuotaWait>>,
    /// The budget that it waits for, while PENDING.
    #[serde(default, skip_serializing_if = "none")]
    pub budget_wait: Option<Box<BudgetWait>>,
    /// When it last joined the queue; `None` before the first time.
    #[serde(default, skip_serializing_if = "none")]
    pub queued_at: Option<Timestamp>,
    /// When its first attempt started.
    #[serde(default, skip_serializing_if = "none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "none")]
    pub ended_at: Option<Timestamp>,
    /// Earliest time of the next attempt.
    #[serde(default, skip_serializing_if = "none")]
    pub retry_at: Option<Timestamp>,
    /// When a cancelled attempt counts as ended although its worker has not confirmed it.
    #[serde(default, skip_serializing_if = "none")]
    pub confirm_by: Option<Timestamp>,
    /// Attempts that workers have started.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempts: u32,
    /// Fence of the latest assignment.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fence: Fence,
    /// Highest fence whose end is in the log, either accepted or noted as stale.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stale_noted: Fence,
    /// Assignment to a worker, while the state is on a worker.
    #[serde(default, skip_serializing_if = "none")]
    pub assignment: Option<Assignment>,
    /// The last attempt, if it ended with the loss of its worker and there was no other assignment since.
    #[serde(default, skip_serializing_if = "none")]
    pub lost: Option<Box<LostAttempt>>,
    /// Attempts that left their workers without a success, oldest first: what they report late still counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Superseded>,
    /// Counted losses whose worker may come back, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<(Fence, WorkerName)>,
    /// Worker of the last assignment that ended.
    #[serde(default, skip_serializing_if = "none")]
    pub last_worker: Option<WorkerName>,
    /// Worker that failed or did not accept the last attempt: another one is preferred for a while.
    #[serde(default, skip_serializing_if = "none")]
    pub avoid: Option<WorkerName>,
    /// Whether an attempt failed because its program could not be started.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_failed: bool,
    /// Failed attempts that count against the retry policy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures: u32,
    /// Those of them after which another model may do better.
    #[serde(default, skip_serializing_if = "is_default")]
    pub own_failures: u32,
    /// Whether a person knows that it keeps failing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub acknowledged: bool,
    /// Rate-limited attempts, which count against no policy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub waits: u32,
    /// Attempts that ended with the unannounced end of their worker.
    #[serde(default, skip_serializing_if = "is_default")]
    pub worker_losses: u32,
    /// Those of these losses that something else than the task may have caused, by their fences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unclear_losses: Vec<Fence>,
    /// Attempts that their workers handed back, as for a planned stop.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hand_backs: u32,
    /// Consecutive assignments whose worker died before it accepted them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unaccepted_losses: u32,
    /// Bytes of the reports of ended attempts in the log.
    #[serde(default, skip_serializing_if = "is_default")]
    pub logged_bytes: u64,
    /// Time that ended attempts spent on workers.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub worked: Duration,
    /// Consecutive assignments that were not accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refusals: u32,
    /// The last of these assignments.
    #[serde(default, skip_serializing_if = "none")]
    pub refusal: Option<Refusal>,
    #[serde(default, skip_serializing_if = "none")]
    pub progress: Option<Progress>,
    #[serde(default, skip_serializing_if = "Usage::is_zero")]
    pub usage: Usage,
    #[serde(default, skip_serializing_if = "none")]
    pub failure: Option<Failure>,
    /// How the last attempt failed; absent if it did not, or was handed back.
    #[serde(default, skip_serializing_if = "none")]
    pub last_failure: Option<Box<Failure>>,
    /// Work of an attempt that was not delivered yet.
    #[serde(default, skip_serializing_if = "none")]
    pub undelivered: Option<Undelivered>,
    /// Number of the last attempt that came to its own end and failed, or could not continue: what it and those before have left is not continued.
    #[serde(default, skip_serializing_if = "is_default")]
    pub concluded: u32,
    /// Messages to its attempts, which a later one gets that does not know them. Bounded; the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Bytes>,
    /// Runtime session that the next attempt could resume.
    #[serde(default, skip_serializing_if = "none")]
    pub session: Option<RuntimeSession>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub inputs: u64,
    /// Latest accepted answers, so that a caller that missed the reply may repeat its answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<Answered>,
    /// Rules that people have allowed for the task, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted: Vec<String>,
    /// Questions of the attempt that has released its slot, and the answers that the next one gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
    /// Whether its log has the notice that most of its budget is spent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nearly_spent: bool,
    /// Last position of the task's log.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log_seq: u64,
    /// Whether sealed secrets are stored for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub has_secrets: bool,
    /// Whether a result is stored for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub has_result: bool,
    /// Whether artifacts are stored for it: of its input, or of an attempt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub has_artifacts: bool,
    /// Number of the last attempt that has left a checkpoint; 0 for none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpointed: u32,
    /// The same before that attempt: what the attempt keeps last may be without one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpointed_before: u32,
    /// Size of the result in bytes; zero in records of earlier versions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub result_size: u64,
}

/// Time in the queue for which a task waits for another worker than the one that failed it.
const AVOID_TIME: Duration = Duration::from_secs(30);

impl Task {
    /// Returns the route on which it waits when ready.
    pub fn route(&self) -> Route {
        Route { namespace: self.namespace.clone(), target: self.target.clone() }
    }

    /// Returns the agent that the target names, if any.
    pub fn agent(&self) -> Option<&AgentName> {
        self.target.agent()
    }

    /// Returns its rank among ready tasks; the lowest is first.
    pub fn rank(&self) -> i64 {
        rank::rank(self.ready_at.unwrap_or(self.created_at), self.priority)
    }

    /// Returns the number of the current or last attempt; 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.assignment.as_ref().map_or(self.attempts, |assignment| assignment.attempt)
    }

    /// Whether the task is left to other workers. Not for long: they may be busy for hours.
    pub fn avoids(&self, worker: &WorkerName, now: Timestamp) -> bool {
        self.avoid.as_ref() == Some(worker) && self.queued_at.is_some_and(|at| now < at + AVOID_TIME)
    }
}
