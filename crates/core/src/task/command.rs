//! What can be asked of a task, and what comes of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{DependencyKey, Desired, Event, Limits, State};
use crate::failure::Failure;
use crate::rank::Priority;
use crate::usage::Usage;
use crate::{Epoch, Fence, TaskId, Timestamp, WorkerName};

/// A worker's session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerRef {
    /// The worker.
    pub worker: WorkerName,
    /// Its session.
    pub epoch: Epoch,
}

/// What a worker says it holds. It counts only if it is the live assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who says so.
    pub by: WorkerRef,
    /// The token it was given.
    pub fence: Fence,
}

/// What can be asked of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Give it to a worker.
    Assign {
        /// The worker.
        to: WorkerRef,
        /// The attempt's span.
        span_id: [u8; 8],
        /// The bounds that the worker's agent sets.
        defaults: Limits,
    },
    /// The worker takes it.
    Accept(Held),
    /// The worker does not take it.
    Reject {
        /// Who.
        held: Held,
        /// Why.
        reason: String,
    },
    /// What the attempt did.
    Report {
        /// Who.
        held: Held,
        /// Number of the first item.
        first: u64,
        /// In order.
        items: Vec<Item>,
    },
    /// The attempt has ended, and none of its processes is left.
    Finish {
        /// Who.
        held: Held,
        /// How.
        ending: Ending,
        /// What it used, in all, where known.
        usage: Option<Usage>,
        /// With what a next attempt could go on; empty for nothing.
        session: String,
        /// From 0 to 1, for the wait before a retry.
        jitter: f64,
    },
    /// The worker came back in a new session and still has the attempt.
    Resume {
        /// The worker with its new session.
        by: WorkerRef,
        /// The token it was given.
        fence: Fence,
    },
    /// The worker's session, up to this epoch, is over and will not come back with the attempt.
    LoseWorker {
        /// The session.
        session: WorkerRef,
        /// What is known.
        message: String,
    },
    /// Look at the clock.
    Tick,
    /// Change what may be changed.
    Update {
        /// How urgent.
        priority: Option<Priority>,
        /// All labels anew.
        labels: Option<BTreeMap<String, String>>,
        /// What the caller wants.
        desired: Option<Desired>,
        /// Why, for the log.
        reason: String,
    },
    /// Give input to the running attempt.
    GiveInput {
        /// The question it answers; empty for a message out of turn.
        request: String,
        /// The API's `TaskInput`, encoded.
        payload: Bytes,
    },
    /// A task that it waits for by this key exists now.
    DependencyFound {
        /// How it was named.
        key: DependencyKey,
        /// Its id.
        id: TaskId,
    },
    /// A task that it depends on has ended.
    DependencyEnded {
        /// Its id.
        id: TaskId,
        /// How.
        state: State,
    },
    /// It is part of a cycle of dependencies.
    Cycle {
        /// The ids, from one to itself.
        path: Vec<TaskId>,
    },
    /// Its agent exists now, or has changed.
    AgentAppeared {
        /// The bounds that it sets.
        defaults: Limits,
    },
    /// Its agent exists no more.
    AgentGone,
}

/// One thing that an attempt did.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// When, by the worker's clock.
    pub at: Timestamp,
    /// The API's `Event`, encoded.
    pub payload: Bytes,
    /// What of it concerns the record.
    pub meaning: Meaning,
}

/// What of a report concerns the record.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// Nothing.
    Plain,
    /// How far it is.
    Progress(super::Progress),
    /// What the attempt has used so far, in all.
    Usage(Usage),
    /// It asks a person.
    Asks {
        /// Names the question.
        request: String,
        /// The API's `InputRequest`, encoded.
        payload: Bytes,
    },
    /// The question has been settled without an answer from here.
    Settles(String),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Well; the API's `TaskResult`, encoded, or `None` when it is empty.
    Succeeded(Option<Bytes>),
    /// Badly.
    Failed(Failure),
    /// Because it was told to.
    Stopped {
        /// What it took.
        by: String,
    },
}

/// What came of a command.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transition {
    /// New entries of the log, numbered.
    pub events: Vec<Event>,
    /// What the asker is told.
    pub reply: Reply,
    /// The task has ended with this command: dependents must hear of it, secrets must go.
    pub ended: bool,
    /// A result to keep.
    pub result: Option<Bytes>,
}

/// What the asker is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reply {
    /// Done, or already so.
    #[default]
    Done,
    /// Reports are in the log up to this `attempt_seq`.
    Reported(u64),
    /// The input has this position.
    InputSeq(u64),
    /// The fence is old; nothing of it counts.
    Stale,
}

/// Why a command was refused. The record is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The task has ended.
    #[error("the task has ended: it is {}", .0.name())]
    Final(State),
    /// Not in this state.
    #[error("not possible while the task is {}", .0.name())]
    State(State),
    /// A fence that was never given.
    #[error("fence {0:?} was never given for this task")]
    UnknownFence(Fence),
    /// Reports are missing in between.
    #[error("reports are missing: expected number {expected}, got {got}")]
    Gap {
        /// The next number.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// There is no such question.
    #[error("no question with the id {0:?} waits for an answer")]
    NoSuchQuestion(String),
    /// A bound was reached.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A cancelled task cannot be brought back.
    #[error("the task's end has been asked for; there is no way back")]
    Cancelling,
}
