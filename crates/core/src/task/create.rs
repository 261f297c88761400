//! How a task begins.

use std::collections::BTreeMap;

use super::apply::Step;
use super::{Dependency, Desired, Limits, State, StateChange, Task, Trace, Transition};
use crate::rank::Priority;
use crate::target::Target;
use crate::usage::Usage;
use crate::{Fence, Namespace, TaskId, Timestamp, retry};

/// A task to be made. Dependencies and `agent_known` are as the store finds them at that moment.
#[derive(Debug, Clone, PartialEq)]
pub struct New {
    /// Its id.
    pub id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// A short name.
    pub alias: Option<String>,
    /// A line for people.
    pub title: String,
    /// Whose it is.
    pub owner: String,
    /// The task that it is a part of.
    pub parent: Option<TaskId>,
    /// The task that it tries again.
    pub retry_of: Option<TaskId>,
    /// Words for finding it.
    pub labels: BTreeMap<String, String>,
    /// Who may do it.
    pub target: Target,
    /// How urgent it is.
    pub priority: Priority,
    /// What the caller wants.
    pub desired: Desired,
    /// Its own bounds.
    pub limits: Limits,
    /// When it is tried again.
    pub retry: retry::Policy,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// Tasks that must end first.
    pub dependencies: Vec<Dependency>,
    /// Its trace.
    pub trace: Trace,
    /// Whether its agent exists.
    pub agent_known: bool,
    /// Whether secrets are kept for it.
    pub has_secrets: bool,
}

/// Makes a task: PENDING, QUEUED, or ended at once where it was born cancelled or a dependency has failed.
pub fn create(new: New, now: Timestamp) -> (Task, Transition) {
    let agent_known = new.agent_known || new.target.agent().is_none();
    let mut task = Task {
        id: new.id,
        namespace: new.namespace,
        alias: new.alias,
        title: new.title,
        owner: new.owner,
        parent: new.parent,
        retry_of: new.retry_of,
        labels: new.labels,
        target: new.target,
        priority: new.priority,
        desired: new.desired,
        limits: new.limits,
        defaults: Limits::default(),
        retry: new.retry,
        not_before: new.not_before,
        dependencies: new.dependencies,
        trace: new.trace,
        agent_known,
        state: State::Pending,
        created_at: now,
        ready_at: None,
        started_at: None,
        ended_at: None,
        retry_at: None,
        confirm_by: None,
        attempts: 0,
        fence: Fence(0),
        stale_noted: Fence(0),
        assignment: None,
        last_worker: None,
        failures: 0,
        waits: 0,
        worker_losses: 0,
        refusals: 0,
        refusal: None,
        progress: None,
        usage: Usage::default(),
        failure: None,
        session: None,
        inputs: 0,
        answered: Vec::new(),
        log_seq: 0,
        has_secrets: new.has_secrets,
        has_result: false,
    };
    let mut step = Step { task: &mut task, now, out: Transition::default() };
    step.go(StateChange::new(State::Pending, "created"));
    if let Some(super::Event { body: super::Body::State(change), .. }) = step.out.events.first_mut() {
        change.from = None;
    }
    step.settle();
    let out = step.out;
    (task, out)
}
