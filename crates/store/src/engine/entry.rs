//! A task's record in a batch, with what its changes produced.

use std::sync::Arc;

use bytes::Bytes;
use rota_core::task::{self, EndedAttempt, Event, QueueWait, State, Task};
use rota_core::usage::Usage;
use rota_core::{AgentName, RouteId, TaskKey};

use super::memory::Live;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) task: Arc<Task>,
    pub(super) route: RouteId,
    /// State before the batch; `None` for a new task.
    pub(super) before: Option<State>,
    /// Whether other tasks depend on it, stored ones or those of the batch.
    pub(super) has_dependents: bool,
    /// Dependents that the batch added.
    pub(super) new_dependents: Vec<TaskKey>,
    pub(super) events: Vec<Event>,
    /// Revision of the batch's change; `None` while the record is unchanged.
    pub(super) revision: Option<u64>,
    /// Whether the batch created the task.
    pub(super) new: bool,
    /// The payload, if it is known.
    pub(super) payload: Option<Bytes>,
    pub(super) result: Option<Bytes>,
    /// New lists of artifacts, by attempt.
    pub(super) artifacts: Vec<(u32, Bytes)>,
    pub(super) assigned: bool,
    pub(super) attempts_ended: Vec<EndedAttempt>,
    pub(super) queue_waits: Vec<(QueueWait, Option<AgentName>)>,
    pub(super) usage: Vec<(Option<AgentName>, Usage)>,
    /// Whether a worker has named what the attempt's model calls use.
    pub(super) identified: bool,
}

impl Entry {
    /// Returns an entry without changes.
    pub(super) fn new(live: Live, route: RouteId) -> Self {
        Self {
            before: Some(live.task.state),
            task: live.task,
            route,
            has_dependents: live.has_dependents,
            new_dependents: Vec::new(),
            events: Vec::new(),
            revision: None,
            new: false,
            payload: None,
            result: None,
            artifacts: Vec::new(),
            assigned: false,
            attempts_ended: Vec::new(),
            queue_waits: Vec::new(),
            usage: Vec::new(),
            identified: false,
        }
    }

    /// Returns the agent whose attempt has used what a command reports.
    pub(super) fn spender(&self, out: &task::Transition) -> Option<AgentName> {
        let attempt = out.attempt_ended.as_ref().map(|ended| &ended.assignment);
        let attempt = attempt.or(self.task.assignment.as_ref());
        // Records of earlier versions do not name it; most tasks do.
        (out.used_by.clone())
            .or_else(|| attempt.and_then(|attempt| attempt.agent.clone()))
            .or_else(|| self.task.agent().cloned())
    }

    /// Records the results of a command for the commit.
    pub(super) fn record(&mut self, out: &mut task::Transition) {
        if self.events.is_empty() {
            self.events = std::mem::take(&mut out.events);
        } else {
            self.events.append(&mut out.events);
        }
        if let Some(result) = out.result.take() {
            self.result = Some(result);
        }
        let current = self.task.assignment.as_ref();
        if let (Some(list), Some(attempt)) = (out.artifacts.take(), current) {
            self.artifacts.push((attempt.attempt, list));
        }
        if !out.used.is_zero() {
            self.usage.push((self.spender(out), std::mem::take(&mut out.used)));
        }
        self.identified |= out.identified;
        let ended = out.attempt_ended.take();
        if let Some(wait) = out.queue_wait {
            self.queue_waits.push((wait, current.and_then(|current| current.agent.clone())));
        }
        self.attempts_ended.extend(ended);
    }
}
