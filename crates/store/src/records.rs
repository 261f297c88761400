//! Commands to a store, their replies, and the records it returns.

mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::failure::Failure;
use rota_core::quota::CredentialId;
use rota_core::spending::{self, Account, BudgetWait};
use rota_core::task::{self, Body, Event, Task, WorkerRef};
use rota_core::workflow::{self, Step, Workflow};
use rota_core::{AgentName, Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName, WorkflowId};
use serde::{Deserialize, Serialize};

pub use self::sessions::{EndSession, OpenSession, Session};
use crate::{Document, DocumentKey, Expected, Given, PutDocument, Reseal, ScopedId, Tick, WorkflowCommand};

#[derive(Debug, Clone)]
pub enum Command {
    Create(Box<Create>),
    /// Apply a command to a task.
    Task {
        /// Must be the task's namespace.
        namespace: Namespace,
        id: TaskId,
        command: task::Command,
    },
    /// Assign ready tasks to a worker.
    Claim(Claim),
    /// Apply deadlines that have passed.
    Tick(Tick),
    /// The clock jumped forward by more than the time that passed, as after a suspend: deadlines of tasks on workers move with
    /// it.
    ClockJumped {
        by: Duration,
    },
    OpenSession(OpenSession),
    EndSession(EndSession),
    /// Drains a process of a worker until its session ends. Changes nothing if it has none.
    DrainWorker {
        namespace: Namespace,
        worker: WorkerName,
        instance: String,
    },
    /// Create or update an agent.
    PutAgent(PutAgent),
    DeleteAgent {
        namespace: Namespace,
        name: AgentName,
    },
    /// Ends the cool-down of a credential, or what it holds back.
    EndCoolDown {
        namespace: Namespace,
        credential: CredentialId,
        how: CoolDownEnd,
    },
    /// Sets the budget of a namespace, if it is the expected one.
    PutBudget {
        namespace: Namespace,
        budget: spending::Budget,
        expected: Option<spending::Budget>,
    },
    /// Replaces what an agent or a namespace has spent today and this month, where the books are wrong.
    CorrectAccount {
        namespace: Namespace,
        scope: spending::Scope,
        today: Option<i64>,
        this_month: Option<i64>,
    },
    /// Agents all of whose workers wait for their credentials, as of now, and since when they do if the engine does not know:
    /// queue timeouts do not count that time.
    HoldAgents(BTreeMap<(Namespace, AgentName), Timestamp>),
    PutDocument(PutDocument),
    DeleteDocument(DocumentKey, Expected),
    /// Replaces sealed secrets of tasks that have not ended.
    Reseal(Vec<Reseal>),
    /// Removes a task that has ended, with its log, unless another task needs it; or one whose record cannot be decoded.
    RemoveTask(ScopedId),
    Prune(Prune),
    Workflow(Box<WorkflowCommand>),
}

/// How a cool-down ends, or for whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoolDownEnd {
    /// The end that the model API named may have passed.
    Passed,
    Forced,
    /// No worker of the agent uses the credential any more.
    Left(AgentName),
    /// The credential may have been replaced: a task may try.
    Probe,
}

impl Command {
    /// Returns the bytes of the payloads that it carries: what may be large of it.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Create(create) => {
                let secrets = create.secrets.as_ref().map_or(0, Bytes::len);
                create.payload.len() + secrets + create.given.bytes()
            }
            Self::Task { command: task::Command::Report { items, .. }, .. } => {
                items.iter().map(|item| item.payload.len()).sum()
            }
            Self::Task {
                command:
                    task::Command::Finish {
                        completion:
                            task::Completion::Succeeded(Some(result))
                            | task::Completion::Undelivered { result, .. },
                        ..
                    },
                ..
            } => result.len(),
            Self::Task { command: task::Command::GiveInput { payload, .. }, .. } => payload.len(),
            Self::Task { command: task::Command::KeepArtifacts { list, .. }, .. } => list.len(),
            Self::PutAgent(put) => put.agent.payload.len(),
            Self::Workflow(command) => command.payload_bytes(),
            Self::PutDocument(put) => put.payload.len(),
            Self::Reseal(secrets) => secrets.iter().map(|one| one.after.len()).sum(),
            _ => 0,
        }
    }
}

/// What to prune. Routes without ready tasks are removed too, unless an agent or a worker serves them.
#[derive(Debug, Clone, Copy)]
pub struct Prune {
    /// Tasks that ended before this time, and keys whose task was removed before it; `None` keeps all.
    pub ended_before: Option<Timestamp>,
    /// Workers whose last session ended before this time.
    pub left_before: Timestamp,
    /// Largest number of removals, which the kinds of records share.
    pub limit: usize,
}

#[derive(Debug, Clone)]
pub struct Create {
    /// The task. The engine resolves its dependencies and its agent.
    pub task: Task,
    /// Payload: the encoded spec, opaque.
    pub payload: Bytes,
    pub secrets: Option<Bytes>,
    pub given: Given,
    pub key: Option<String>,
    /// Whether the caller chose the id, so that it may exist already.
    pub foreign_id: bool,
    /// Reject the task if its agent or a dependency does not exist.
    pub strict: bool,
    /// Worker with a reserved slot: the task is assigned to it in the same commit, if it is ready.
    pub offer: Option<WorkerRef>,
}

/// Claim of ready tasks for a worker.
#[derive(Debug, Clone)]
pub struct Claim {
    pub namespace: Namespace,
    pub worker: WorkerRef,
    /// Routes to take tasks from.
    pub routes: Vec<RouteId>,
    /// Those of them that another worker serves too: their tasks that avoid this worker are left to it.
    pub shared: Vec<RouteId>,
    pub slots: usize,
    /// The credential of the worker's agent, if it cools down: the first task that uses it is its probe, if one may.
    pub probes: Option<CredentialId>,
    /// Agents whose workers isolate nothing: they take no tasks that demand it, whatever their budgets have left.
    pub not_isolating: Arc<BTreeSet<AgentName>>,
}

/// Creation or update of an agent.
#[derive(Debug, Clone)]
pub struct PutAgent {
    /// The agent. The engine sets its generation and times.
    pub agent: Agent,
    /// `Some(true)` to update only, `Some(false)` to create only.
    pub must_exist: Option<bool>,
}

/// Reply to one command. Records are as the whole batch leaves them.
#[derive(Debug, Clone)]
pub enum Reply {
    Created(Arc<Task>),
    /// The existing task with this id or key.
    Existing(Arc<Task>),
    /// The task after the command, with the reply to its sender.
    Task(Arc<Task>, task::Reply),
    Claimed(usize),
    /// No task was assigned, and those that were looked at stay ready for other workers.
    PassedOver,
    /// Number of tasks with a passed deadline.
    Ticked(usize),
    /// The new session, and the fate of each named attempt.
    Session(Epoch, Vec<Resumed>),
    Ended(usize),
    Agent(Arc<Agent>),
    Account(Arc<Account>),
    /// The workflow after the command; with `created`, a new one.
    Workflow {
        workflow: Arc<Workflow>,
        created: bool,
    },
    Step(Arc<Step>),
    /// What the driver has evaluated was taken over: the created tasks that were offered to a worker.
    Driven(Vec<Arc<Task>>),
    Document(Arc<Document>),
    Deleted,
    /// Number of tasks whose sealed secrets were replaced.
    Resealed(usize),
    Pruned {
        count: usize,
        /// Whether another prune would find more rows to look at.
        more: bool,
    },
}

/// Fate of a named attempt after a Hello.
#[derive(Debug, Clone)]
pub struct Resumed {
    pub id: TaskId,
    /// Fence that the worker named.
    pub fence: Fence,
    /// The record and the last stored `attempt_seq`, if the attempt continues; `None` if it is stale.
    pub live: Option<(Arc<Task>, u64)>,
}

/// Rejection of one command. Nothing of it has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("task {0} does not exist")]
    NoTask(TaskId),
    #[error("agent {0} does not exist")]
    NoAgent(AgentName),
    #[error("agent {0} already exists")]
    AgentExists(AgentName),
    /// Rejected by the task's state machine.
    #[error(transparent)]
    Rejected(#[from] task::Rejected),
    /// A strict task names an object that does not exist.
    #[error("{what} {name:?} does not exist")]
    Strict {
        /// Kind of the missing object: `agent` or `dependency`.
        what: &'static str,
        name: String,
        /// Index of the dependency, from 0.
        index: usize,
    },
    /// The idempotency key belongs to a removed task: whether it ran is no longer known.
    #[error("the idempotency key belongs to task {0}, which has been removed")]
    KeyOutlived(TaskId),
    /// A stored record cannot be decoded, for example because a newer version wrote it.
    #[error("the record of {what} cannot be decoded: {reason}")]
    Corrupt {
        /// The object, for example `task 0197…`.
        what: String,
        reason: String,
    },
    /// A budget is spent that refuses new tasks.
    #[error("{} is spent", .0.describe())]
    BudgetSpent(BudgetWait),
    #[error("workflow {0} does not exist")]
    NoWorkflow(WorkflowId),
    /// Rejected by the state machine of workflows.
    #[error(transparent)]
    Workflow(workflow::Rejected),
    #[error("{0} does not exist")]
    NoDocument(DocumentKey),
    #[error("{0} already exists")]
    DocumentExists(DocumentKey),
    #[error("{0} was changed concurrently")]
    DocumentChanged(DocumentKey),
    #[error("the budget has changed since it was read")]
    BudgetChanged,
    #[error("the worker has a newer session")]
    Superseded,
    /// Another process has taken the worker's name while it was disconnected.
    #[error("another process has taken this worker's name")]
    Replaced,
    #[error("the name is that of a worker of agent {0}")]
    NameTaken(AgentName),
}

/// Counts that only a store can provide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub pending: u64,
    /// For each requested route with ready tasks, when the first of them became ready.
    pub next: Vec<(RouteId, Timestamp)>,
}

/// A time with its beginning and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// What is kept of a task next to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskBody {
    Payload,
    Result,
}

/// Bound of a read of log entries: it returns at least one entry if there is any, and ends once the entries or their
/// bytes reach the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub entries: usize,
    /// Bytes of payloads and texts, with a constant for the rest of each event: about the encoded size.
    pub bytes: usize,
}

impl Budget {
    pub const UNLIMITED: Self = Self { entries: usize::MAX, bytes: usize::MAX };

    /// Subtracts an entry with its events. Returns whether the budget is used up.
    pub fn spend(&mut self, events: &[Event]) -> bool {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(encoded_size(events));
        self.entries == 0 || self.bytes == 0
    }
}

/// Returns about the encoded size of events.
pub fn encoded_size(events: &[Event]) -> usize {
    events.iter().map(size).sum()
}

fn size(event: &Event) -> usize {
    /// Position, time, names of fields and codes.
    const FIXED: usize = 64;
    let failure = |failure: &Failure| FIXED + failure.message.len() + failure.hint.len();
    FIXED
        + match &event.body {
            Body::State(change) => change.message.len() + change.failure.as_ref().map_or(0, failure),
            Body::Report(payload) | Body::Input { payload, .. } => payload.len(),
            Body::Change { fields, message } => {
                fields.iter().map(|field| field.len()).sum::<usize>() + message.len()
            }
            Body::Notice { message, .. } => message.len(),
        }
}

/// Page of the log of all tasks.
#[derive(Debug, Clone, Default)]
pub struct FeedPage {
    pub entries: Vec<FeedEntry>,
    /// Whether there were more entries.
    pub more: bool,
}

/// Entries that one commit added to one task's log.
#[derive(Debug, Clone)]
pub struct FeedEntry {
    pub revision: u64,
    /// The record as it is now; `None` if it cannot be decoded.
    pub task: Option<Task>,
    pub events: Vec<Event>,
}
