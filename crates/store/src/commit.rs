//! One commit as its reader receives it: the records it changed, and the facts that only the engine sees.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::quota::CoolDown;
use rota_core::spending::Account;
use rota_core::target::Route;
use rota_core::task::{EndedAttempt, Event, QueueWait, State, Task};
use rota_core::usage::Usage;
use rota_core::workflow::{Step, Workflow};
use rota_core::{AgentName, Namespace, RouteId, Timestamp, WorkflowKey};

use crate::{Document, StepKey};

/// Changes of one transaction, with the facts that only the engine sees.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Revision of the store after the commit. A [`crate::Snapshot`] of this revision or a later one contains it.
    pub revision: u64,
    /// Changed tasks, in order of first touch.
    pub tasks: Vec<TaskChange>,
    /// Attempts that left their workers, grouped by task in the order of `tasks`. Each is reported once.
    pub attempts_ended: Vec<AttemptEnded>,
    /// Stays in the queue that ended, in the same order.
    pub queue_left: Vec<QueueLeft>,
    /// Usage that attempts added, in the same order.
    pub usage: Vec<UsageAdded>,
    pub agents: Vec<AgentChange>,
    pub cool_downs: Vec<CoolDownChange>,
    pub accounts: Vec<AccountChange>,
    /// Changed workflows and steps, in order of first touch; then the workflows that were removed.
    pub workflows: Vec<Arc<Workflow>>,
    pub steps: Vec<Arc<Step>>,
    /// Workflows whose rows are removed, also those whose records cannot be decoded.
    pub removed_workflows: Vec<WorkflowKey>,
    /// Those of the workflows that have ended in this commit. Later ones may change them again.
    pub workflows_ended: Vec<WorkflowKey>,
    /// Steps that began to wait for a person in this commit. They may have waited before in another round.
    pub steps_asking: Vec<StepKey>,
    /// Changes of documents, in the order of their commands.
    pub documents: Vec<DocumentChange>,
    pub routes: Vec<(RouteId, Route)>,
    /// Removed routes, possibly including new ones.
    pub removed_routes: Vec<RouteId>,
    /// Number of ready tasks of routes on which a claim found none, as the commit leaves them: a reader whose count
    /// differs has miscounted.
    pub queue_counts: Vec<(RouteId, u64)>,
    /// Next deadline of any task.
    pub next_due: Option<Timestamp>,
    /// Objects whose record cannot be decoded, with the reason. They are kept, but left alone from now on.
    pub undecodable: Vec<(String, String)>,
    /// Namespaces of the tasks that have waited until now, and whose records cannot be decoded: once for each.
    pub quarantined: Vec<Namespace>,
    /// Follow-ups that cannot be continued, by number, with the reason. They are kept, but left alone until the next start.
    pub set_aside: Vec<(u64, String)>,
    pub commands: usize,
    /// Time from the start of the transaction until it was durable.
    pub took: Duration,
}

impl Commit {
    /// Whether the commit wrote records; others only report what was found.
    pub fn changes_records(&self) -> bool {
        !(self.tasks.is_empty()
            && self.agents.is_empty()
            && self.cool_downs.is_empty()
            && self.accounts.is_empty()
            && self.workflows.is_empty()
            && self.removed_workflows.is_empty()
            && self.steps.is_empty()
            && self.documents.is_empty()
            && self.routes.is_empty()
            && self.removed_routes.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        !self.changes_records()
            && self.undecodable.is_empty()
            && self.quarantined.is_empty()
            && self.set_aside.is_empty()
            && self.queue_counts.is_empty()
    }
}

/// Change of one task in one commit.
#[derive(Debug, Clone)]
pub struct TaskChange {
    /// The record after the commit.
    pub task: Arc<Task>,
    pub route: RouteId,
    /// State before the commit; `None` if the task is new.
    pub before: Option<State>,
    /// New log entries; empty if only the record changed.
    pub events: Arc<[Event]>,
    /// Revision of these entries; 0 if there are none.
    pub revision: u64,
    /// What its worker receives besides the record, if the task was assigned in this commit.
    pub dispatch: Option<Arc<Dispatch>>,
    /// Whether its worker has named what the attempt's model calls use.
    pub identified: bool,
}

/// What a worker receives besides the record.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The task's payload: its encoded spec.
    pub payload: Bytes,
    pub secrets: Option<Bytes>,
    pub previous: Vec<Previous>,
}

/// A dependency that has ended, with its result.
#[derive(Debug, Clone)]
pub struct Previous {
    pub task: Arc<Task>,
    pub result: Option<Bytes>,
}

/// The end of an attempt.
#[derive(Debug, Clone)]
pub struct AttemptEnded {
    /// The task's record after the commit: the task may be queued again, or on another worker.
    pub task: Arc<Task>,
    pub attempt: EndedAttempt,
}

impl AttemptEnded {
    pub fn namespace(&self) -> &Namespace {
        &self.task.namespace
    }

    /// Returns the agent that the attempt's worker served.
    pub fn agent(&self) -> Option<&AgentName> {
        // Records of earlier versions do not name it; most tasks do.
        self.attempt.assignment.agent.as_ref().or_else(|| self.task.agent())
    }
}

/// The end of a task's stay in the queue.
#[derive(Debug, Clone)]
pub struct QueueLeft {
    /// The task's record after the commit.
    pub task: Arc<Task>,
    /// When the stay began and ended.
    pub wait: QueueWait,
    /// The agent whose worker took the task; `None` if it left the queue unassigned.
    pub agent: Option<AgentName>,
}

/// Usage that an attempt added.
#[derive(Debug, Clone)]
pub struct UsageAdded {
    pub namespace: Namespace,
    /// The agent that the attempt's worker serves.
    pub agent: Option<AgentName>,
    /// The difference, under the model that did most of the attempt.
    pub usage: Usage,
}

/// Change of the cool-down of one credential in one commit.
#[derive(Debug, Clone)]
pub struct CoolDownChange {
    /// The cool-down; one that is over as it was.
    pub cool_down: Arc<CoolDown>,
    pub over: bool,
}

/// Change of the books of an agent or a namespace, or of what is reserved, in one commit.
#[derive(Debug, Clone)]
pub struct AccountChange {
    pub account: Arc<Account>,
    /// What running attempts may still spend, in millionths of a US dollar.
    pub reserved: i64,
}

/// Change of one document in one commit.
#[derive(Debug, Clone)]
pub struct DocumentChange {
    /// The document; a removed one as it was.
    pub document: Arc<Document>,
    pub deleted: bool,
}

/// Change of one agent in one commit.
#[derive(Debug, Clone)]
pub struct AgentChange {
    /// The agent; a removed one as it was.
    pub agent: Arc<Agent>,
    pub deleted: bool,
}
