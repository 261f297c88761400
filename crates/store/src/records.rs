//! What goes into a store and what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{self, Event, New, State, Task, WorkerRef};
use rota_core::{AgentName, Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use serde::{Deserialize, Serialize};

/// One thing to do.
#[derive(Debug)]
pub enum Command {
    /// Make a task.
    Create(Box<Create>),
    /// Ask something of a task.
    Task {
        /// Its namespace, checked.
        namespace: Namespace,
        /// Its id.
        id: TaskId,
        /// What.
        command: task::Command,
    },
    /// Give ready tasks to a worker.
    Claim(Claim),
    /// Let every task whose time has come look at the clock.
    Tick {
        /// At most this many.
        limit: usize,
    },
    /// A worker says Hello.
    OpenSession(OpenSession),
    /// A worker's session is over for good.
    EndSession(EndSession),
    /// Make or change an agent.
    PutAgent(PutAgent),
    /// Remove an agent.
    DeleteAgent {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: AgentName,
    },
    /// Remove what nobody needs any more.
    Prune(Prune),
}

/// What may go. Routes that nothing waits on go too, unless an agent or a worker stands behind them.
#[derive(Debug, Clone, Copy)]
pub struct Prune {
    /// Tasks that ended before this time, and keys whose task was removed before it; `None` keeps all of them.
    pub ended_before: Option<Timestamp>,
    /// Workers whose last session ended before this time.
    pub left_before: Timestamp,
    /// At most this many of each kind.
    pub limit: usize,
}

/// A task to be made.
#[derive(Debug)]
pub struct Create {
    /// The task. Its dependencies count as missing and its agent as unknown until the engine has looked.
    pub new: New,
    /// What was handed in, encoded; opaque.
    pub payload: Bytes,
    /// Sealed secrets; opaque.
    pub secrets: Option<Bytes>,
    /// Makes the creation safe to repeat.
    pub key: Option<String>,
    /// Whether the id may exist already (it came from the caller).
    pub foreign_id: bool,
    /// Refuse it when its agent or a dependency does not exist.
    pub strict: bool,
    /// A free slot that fits: the assignment is in the same commit if the task is ready.
    pub offer: Option<WorkerRef>,
}

/// A worker's wish for tasks.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its session.
    pub worker: WorkerRef,
    /// Where it may take from.
    pub routes: Vec<RouteId>,
    /// How many at most.
    pub slots: usize,
}

/// A worker's Hello.
#[derive(Debug)]
pub struct OpenSession {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub worker: WorkerName,
    /// Its agent.
    pub agent: AgentName,
    /// Its process.
    pub instance: String,
    /// The control plane's replica that holds the stream.
    pub replica: String,
    /// Attempts that it still has.
    pub running: Vec<(TaskId, Fence)>,
    /// Its last session, if it had one.
    pub last: Option<Epoch>,
}

/// The end of a worker's session.
#[derive(Debug)]
pub struct EndSession {
    /// Its namespace.
    pub namespace: Namespace,
    /// The session; nothing happens if the worker has a newer one.
    pub session: WorkerRef,
    /// What is known, for the log.
    pub message: String,
}

/// An agent to be made or changed.
#[derive(Debug)]
pub struct PutAgent {
    /// The agent; its generation and times are the engine's.
    pub agent: Agent,
    /// `Some(true)`: it must exist. `Some(false)`: it must not.
    pub must_exist: Option<bool>,
}

/// What came of one command.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The task as it is after its creation.
    Created(Arc<Task>),
    /// There is a task of that id or key already.
    Existing(Arc<Task>),
    /// The task as it is after the command, and what the asker is told.
    Task(Arc<Task>, task::Reply),
    /// So many tasks were given.
    Claimed(usize),
    /// So many tasks looked at the clock.
    Ticked(usize),
    /// The new session, and what becomes of each attempt named.
    Session(Epoch, Vec<Resumed>),
    /// So many tasks were freed.
    Ended(usize),
    /// The agent as it is now.
    Agent(Arc<Agent>),
    /// It is gone.
    Deleted,
    /// So much was removed.
    Pruned(usize),
}

/// What becomes of an attempt after a Hello.
#[derive(Debug, Clone)]
pub struct Resumed {
    /// The task.
    pub id: TaskId,
    /// The fence named.
    pub fence: Fence,
    /// The record, and the last `attempt_seq` in its log, if it goes on.
    pub live: Option<(Arc<Task>, u64)>,
}

/// Why one command was refused. Nothing of it has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such task.
    #[error("there is no task {0}")]
    NoTask(TaskId),
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NoAgent(AgentName),
    /// There is an agent of that name.
    #[error("the agent {0} exists already")]
    AgentExists(AgentName),
    /// The task's rules forbid it.
    #[error(transparent)]
    Rejected(#[from] task::Rejected),
    /// A strict task names something that does not exist.
    #[error("{what} {name:?} does not exist")]
    Strict {
        /// `agent` or `dependency`.
        what: &'static str,
        /// The name.
        name: String,
        /// Which dependency, from 0.
        index: usize,
    },
    /// The key belongs to a task whose record is gone: whether it ran is no longer known.
    #[error("the idempotency key belongs to the task {0}, whose record is gone")]
    KeyOutlived(TaskId),
    /// The worker has a newer session.
    #[error("the worker has a newer session")]
    Superseded,
    /// The worker was away, and another process has its name.
    #[error("another process has joined under this worker's name")]
    Replaced,
}

/// What one commit changed.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Tasks, in the order in which they were first touched.
    pub tasks: Vec<TaskChange>,
    /// Agents.
    pub agents: Vec<AgentChange>,
    /// Routes that were not known before.
    pub routes: Vec<(RouteId, Route)>,
    /// Routes that are gone, perhaps also of those that are new.
    pub gone_routes: Vec<RouteId>,
    /// When the next task's time comes.
    pub next_due: Option<Timestamp>,
    /// How many commands it carried out.
    pub commands: usize,
    /// How long it took until it was durable.
    pub took: Duration,
}

impl Commit {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
            && self.agents.is_empty()
            && self.routes.is_empty()
            && self.gone_routes.is_empty()
    }
}

/// What only a store can count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Tasks that wait for something other than a slot.
    pub pending: u64,
    /// Of each route asked for, when the task that is next in line became ready; nothing where none is.
    pub next: Vec<(RouteId, Timestamp)>,
}

/// What one commit changed in one task.
#[derive(Debug, Clone)]
pub struct TaskChange {
    /// Its record after the commit.
    pub task: Arc<Task>,
    /// Its route.
    pub route: RouteId,
    /// Its state before the commit; `None` if it is new.
    pub before: Option<State>,
    /// New entries of its log; empty when only its record changed.
    pub events: Arc<[Event]>,
    /// Revision of these entries; 0 when there are none.
    pub revision: u64,
    /// What to send to its worker, when it was assigned in this commit.
    pub dispatch: Option<Arc<Dispatch>>,
}

/// What a worker must be sent besides the record.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// What was handed in.
    pub payload: Bytes,
    /// Sealed secrets.
    pub secrets: Option<Bytes>,
    /// The tasks that it depends on, with what they brought.
    pub previous: Vec<Previous>,
}

/// A task that another depends on, ended.
#[derive(Debug, Clone)]
pub struct Previous {
    /// Its record.
    pub task: Arc<Task>,
    /// What it brought.
    pub result: Option<Bytes>,
}

/// What one commit changed in one agent.
#[derive(Debug, Clone)]
pub struct AgentChange {
    /// The agent; for a removed one, as it was.
    pub agent: Arc<Agent>,
    /// Whether it is gone.
    pub deleted: bool,
}

/// A worker's session row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its namespace.
    pub namespace: Namespace,
    /// The worker.
    pub worker: WorkerName,
    /// Its agent.
    pub agent: AgentName,
    /// Grows with each Hello.
    pub epoch: Epoch,
    /// The worker's process.
    pub instance: String,
    /// The replica that holds the stream.
    pub replica: String,
    /// Whether it has not ended.
    pub open: bool,
    /// When it was opened or ended.
    pub since: Timestamp,
}

/// Everything that a control plane keeps in memory.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All agents.
    pub agents: Vec<Agent>,
    /// All routes.
    pub routes: Vec<(RouteId, Route)>,
    /// Ready tasks by route.
    pub queued: Vec<(RouteId, u64)>,
    /// Sessions that have not ended.
    pub sessions: Vec<Session>,
    /// Tasks on workers.
    pub on_workers: Vec<(RouteId, Task)>,
    /// When the next task's time comes.
    pub next_due: Option<Timestamp>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this namespace; of all when `None`.
    pub namespace: Option<Namespace>,
    /// One of these states; any when empty.
    pub states: Vec<State>,
    /// Of this agent.
    pub agent: Option<AgentName>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Of this alias.
    pub alias: Option<String>,
    /// Part of this task.
    pub parent: Option<TaskId>,
    /// Made at or after.
    pub created_after: Option<Timestamp>,
    /// Made before.
    pub created_before: Option<Timestamp>,
    /// Only those whose id comes before this one: the page token.
    pub before_id: Option<TaskId>,
    /// At most this many.
    pub limit: usize,
}

impl Filter {
    /// Whether a task fits, apart from the page.
    pub fn fits(&self, task: &Task) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| task.namespace == *namespace)
            && (self.states.is_empty() || self.states.contains(&task.state))
            && self.agent.as_ref().is_none_or(|agent| task.agent() == Some(agent))
            && self.labels.iter().all(|(key, value)| task.labels.get(key) == Some(value))
            && self.owner.as_ref().is_none_or(|owner| task.owner == *owner)
            && self.alias.as_ref().is_none_or(|alias| task.alias.as_ref() == Some(alias))
            && self.parent.is_none_or(|parent| task.parent == Some(parent))
            && self.created_after.is_none_or(|at| task.created_at >= at)
            && self.created_before.is_none_or(|at| task.created_at < at)
    }
}

/// A page of tasks.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The tasks, newest id first.
    pub tasks: Vec<Task>,
    /// Where the next page begins, if there may be more.
    pub next: Option<TaskId>,
}

/// What one commit added to one task's log.
#[derive(Debug, Clone)]
pub struct FeedEntry {
    /// Its revision.
    pub revision: u64,
    /// The task.
    pub id: TaskId,
    /// The entries.
    pub events: Vec<Event>,
}
