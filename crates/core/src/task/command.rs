//! Commands on a task, and the transitions that result from them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{DependencyKey, Desired, EndedAttempt, Event, Limits, QueueWait, Settings, State, Stopping};
use crate::failure::Failure;
use crate::quota::{CredentialId, ModelAccess};
use crate::rank::Priority;
use crate::spending::{BudgetWait, Scope};
use crate::usage::Usage;
use crate::{AgentName, Epoch, Fence, TaskId, Timestamp, WorkerName};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerRef {
    pub worker: WorkerName,
    pub epoch: Epoch,
}

/// Reference to an attempt as its worker reports it. Valid only while it names the live assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRef {
    pub by: WorkerRef,
    /// The fence of the assignment.
    pub fence: Fence,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Assigns the task to a worker.
    Assign {
        to: WorkerRef,
        agent: AgentName,
        /// Id of the attempt's trace span, and the source of jitter for a rejected assignment.
        span_id: [u8; 8],
        /// Limits that the worker's agent sets.
        defaults: Limits,
        /// What is reserved for it of the budgets of its agent and its namespace, in millionths of a US dollar.
        reserved: i64,
    },
    /// The worker accepts the assignment.
    Accept(AttemptRef),
    /// The worker reports what the model calls of the attempt use.
    UseModel {
        attempt: AttemptRef,
        access: ModelAccess,
    },
    /// The worker rejects the assignment.
    Reject {
        attempt: AttemptRef,
        reason: String,
    },
    /// Output, progress, usage and input requests of the attempt.
    Report {
        attempt: AttemptRef,
        /// `attempt_seq` of the first item.
        first: u64,
        items: Vec<Item>,
    },
    /// Keeps the list of what the attempt has stored, in place of its last one.
    KeepArtifacts {
        attempt: AttemptRef,
        /// Encoded `ArtifactList` of the API.
        list: Bytes,
        /// Whether another attempt or task can continue from it.
        checkpoint: bool,
        /// Whether the attempt cannot continue what it was given: neither can a later one.
        unusable: bool,
    },
    /// The attempt only waits for a person, and another one can continue from what it has stored.
    Release {
        attempt: AttemptRef,
        /// Ids of the questions that are open, as far as the worker knows.
        requests: Vec<String>,
    },
    /// The attempt has ended, with all of its processes.
    Finish {
        attempt: AttemptRef,
        /// `attempt_seq` of its last item, which must have been reported before; 0 if unknown.
        last: u64,
        completion: Completion,
        /// Total usage of the attempt, if known.
        usage: Option<Usage>,
        /// Runtime session that the next attempt could resume; empty for none.
        session: String,
        /// Jitter of the backoff before a retry, from 0 to 1.
        jitter: f64,
    },
    /// The worker reconnected and still runs the attempt.
    Resume {
        by: WorkerRef,
        /// The fence of the assignment.
        fence: Fence,
    },
    /// The worker's sessions up to this epoch have ended, and the attempt with them.
    LoseWorker {
        session: WorkerRef,
        loss: Loss,
        /// When the worker was last there, if known: what it worked counts until then, or until its last report.
        seen: Option<Timestamp>,
        message: String,
    },
    /// Stops the running attempt, whose budget, or that of its agent or namespace, is spent.
    Stop {
        /// The fence of the assignment.
        fence: Fence,
        stopping: Stopping,
    },
    /// Applies every deadline that has passed.
    Tick {
        /// Deadlines after this are not judged. It may precede the time of the command, which is that of the consequences.
        by: Timestamp,
        /// Time since the task became ready in which no worker could have taken it: its queue timeout does not count it.
        away: Duration,
    },
    /// The clock jumped forward by more than the time that passed, as was noticed at a time. The deadlines of an attempt move
    /// with it, once: of one that has begun or come back since, nothing does.
    ClockJumped {
        by: Duration,
        at: Timestamp,
    },
    Update {
        priority: Option<Priority>,
        /// The new labels; they replace all others.
        labels: Option<BTreeMap<String, String>>,
        desired: Option<Desired>,
        reason: String,
    },
    /// As `Update`, for a caller who has read these settings: refused if another change came first.
    UpdateAsRead {
        read: Settings,
        priority: Option<Priority>,
        labels: Option<BTreeMap<String, String>>,
        desired: Option<Desired>,
        reason: String,
    },
    /// A person knows that the task keeps failing.
    Acknowledge {
        reason: String,
    },
    /// Gives input to the running attempt.
    GiveInput {
        /// The input request that it answers; empty for an unsolicited message.
        request: String,
        /// Encoded `TaskInput` of the API.
        payload: Bytes,
        /// What it allows for longer than the call in question.
        grant: Option<Grant>,
    },
    /// A task was created that names this one as its parent.
    AddChild {
        id: TaskId,
    },
    /// A missing dependency was created.
    DependencyFound {
        /// Key under which the dependency was declared.
        key: DependencyKey,
        id: TaskId,
    },
    DependencyEnded {
        id: TaskId,
        state: State,
    },
    /// The credential that the task would use cools down: it waits.
    AwaitQuota {
        credential: CredentialId,
        /// Name of the limit, such as `five_hour`.
        limit: String,
        /// When the cool-down of the credential began.
        since: Timestamp,
        /// When it ends, as far as it is known.
        until: Timestamp,
        /// When the task may try.
        retry_at: Timestamp,
    },
    /// The credential may be used again.
    QuotaLifted {
        credential: CredentialId,
    },
    /// The task before this one in its thread has ended before the one that it waited for itself: this one waits for that.
    ThreadPassedOn {
        /// The task that has ended.
        id: TaskId,
        next: TaskId,
    },
    /// The budgets of the task's agent and namespace have no room for it: it waits for the next period.
    AwaitBudget(BudgetWait),
    /// A budget may have room again.
    BudgetLifted {
        scope: Scope,
    },
    /// The task's usage has brought a budget near its limit.
    WarnOfBudget {
        message: String,
    },
    /// The task is part of a dependency cycle.
    Cycle {
        /// The first ids along the cycle, from this task.
        path: Vec<TaskId>,
        /// Number of ids between the last of them and this task again.
        omitted: usize,
    },
    /// The task's agent was created or changed.
    AgentAppeared {
        /// Limits that the agent sets.
        defaults: Limits,
    },
    /// The task's agent was deleted.
    AgentDeleted,
}

/// Permission that an answer gives for the rest of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The question as the caller knows it, encoded: an agent may have replaced it since.
    pub asked: Bytes,
    /// Rules that are allowed from now on.
    pub rules: Vec<String>,
}

impl Command {
    /// [`Self::Tick`] where each moment of the queue time counts, by the time of the command.
    pub const TICK: Self = Self::Tick { by: Timestamp::MAX, away: Duration::ZERO };
}

/// How a worker left its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The session ended without an announcement.
    Died,
    /// The same, and something else may have ended it: another attempt on the worker, or what stopped the control plane too.
    Unclear,
    /// It was draining: a planned stop, which is to the blame of neither task nor worker.
    Planned,
    /// It is back as the same process and does not know the assignment, which was lost on its way.
    Undelivered,
}

/// One entry of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Time by the worker's clock.
    pub at: Timestamp,
    /// Encoded `Event` of the API; empty if the log takes none now.
    pub payload: Bytes,
    pub effect: EventEffect,
}

/// Effect of a reported event on the task's record.
#[derive(Debug, Clone, PartialEq)]
pub enum EventEffect {
    None,
    Progress(super::Progress),
    /// Total usage of the attempt so far.
    Usage(Usage),
    InputRequested {
        request: String,
        /// Encoded `InputRequest` of the API.
        payload: Bytes,
    },
    /// The request with this id was resolved without an answer from the control plane.
    InputResolved(String),
    /// The programs of the attempt have ended; the rest is not work. With a value, it needs no slot either: whether what is left is on
    /// a disk that outlives the worker.
    WorkEnded(Option<bool>),
    /// A model call has succeeded.
    ModelWorked,
    /// The attempt waits for a workspace that another one uses: the clock stands until its next event that is no notice.
    HeldUp,
    /// A notice, which is no work: the clock stands, or runs, as before.
    Notice,
    /// Stands for so many events that were acknowledged, and lost with the last commits of the store.
    Lost(u64),
}

/// Completion of an attempt, as its worker reports it.
#[derive(Debug, Clone, PartialEq)]
pub enum Completion {
    /// Encoded `TaskResult` of the API, or `None` if it is empty.
    Succeeded(Option<Bytes>),
    Failed(Failure),
    /// The work is done and kept, and could not be delivered: it may be later.
    Undelivered {
        failure: Failure,
        /// Encoded `TaskResult` of the API.
        result: Bytes,
    },
    Stopped {
        /// Means that ended it, such as a signal.
        by: String,
    },
}

/// Result of a command: what the store writes and what follows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transition {
    /// New entries of the task's log.
    pub events: Vec<Event>,
    /// Reply to the sender of the command.
    pub reply: Reply,
    /// Whether the command ended the task: dependents follow, and its secrets are deleted.
    pub ended: bool,
    pub result: Option<Bytes>,
    /// New list of the artifacts of the current attempt.
    pub artifacts: Option<Bytes>,
    /// The attempt that left its worker.
    pub attempt_ended: Option<EndedAttempt>,
    /// The wait in the queue that ended.
    pub queue_wait: Option<QueueWait>,
    /// Usage added to the attempt, or to one that was superseded.
    pub used: Usage,
    /// Largest part of its cost that the attempt has reported as one step, such as a turn of a model, in millionths of a US dollar.
    pub turn: i64,
    /// Agent of the superseded attempt that added it, if one did.
    pub used_by: Option<AgentName>,
    /// Whether the attempt's model calls work.
    pub model_worked: bool,
    /// Whether the worker has named what the attempt's model calls use.
    pub identified: bool,
    /// Whether the task waits on another route from now on.
    pub moved: bool,
}

/// Reply to the sender of the command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reply {
    /// Done, or nothing to do.
    #[default]
    Done,
    /// Reports are stored up to this `attempt_seq`.
    Reported(u64),
    /// Position of the input among the task's inputs.
    InputSeq(u64),
    /// The fence is stale: the command was ignored.
    Stale,
}

/// Rejection of a command. The record is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the task has already ended in state {}", .0.name())]
    Final(State),
    /// The command is not possible in this state.
    #[error("not possible while the task is {}", .0.name())]
    State(State),
    #[error("{0:?} was never issued for this task")]
    UnknownFence(Fence),
    #[error("reports are missing: expected {expected}, got {got}")]
    Gap { expected: u64, got: u64 },
    #[error("no open input request has the id {0:?}")]
    NoSuchQuestion(String),
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A cancelled task cannot be resumed.
    #[error("the task is being cancelled")]
    Cancelling,
    /// Another caller has changed it first.
    #[error("the task has changed since it was read")]
    Changed,
}
