//! Attempts that only store what they have left: they hold no slot, and outlive the sessions of their workers. Workers that are not
//! there are awaited as long as their disks have what no storage has.

use std::collections::{BTreeMap, BTreeSet};

use rota_core::TaskId;
use rota_core::task::{Task, WorkerRef};
use rota_store::TaskChange;

use super::state::State;
use super::{Scheduler, SlotState, WorkerEntry};
use crate::keys::{AgentKey, WorkerKey};

/// Workers without a session that have what attempts left, by agent: their tasks.
#[derive(Debug, Default)]
pub(super) struct Awaited(BTreeMap<WorkerKey, (AgentKey, BTreeSet<TaskId>)>);

impl Awaited {
    fn add(&mut self, worker: WorkerKey, agent: AgentKey, tasks: impl Iterator<Item = TaskId>) {
        let mut tasks = tasks.peekable();
        if tasks.peek().is_some() {
            self.0.entry(worker).or_insert_with(|| (agent, BTreeSet::new())).1.extend(tasks);
        }
    }

    /// Removes a task that has left its worker. Returns whether nothing more is awaited of that worker.
    fn remove(&mut self, worker: &WorkerKey, task: TaskId) -> bool {
        let Some((_, tasks)) = self.0.get_mut(worker) else { return false };
        tasks.remove(&task);
        tasks.is_empty() && self.0.remove(worker).is_some()
    }

    /// Returns the workers, with their agents.
    pub(super) fn workers(&self) -> impl Iterator<Item = (AgentKey, WorkerKey)> {
        self.0.iter().map(|(worker, (agent, _))| (agent.clone(), worker.clone()))
    }
}

impl State {
    /// Follows what a commit did to an attempt that stores, or to a task that waits for its worker.
    pub(super) fn apply_storing(&mut self, change: &TaskChange) {
        let task = &*change.task;
        match &task.assignment {
            Some(assignment) if assignment.storing.is_some() => {
                let key = (task.namespace.clone(), assignment.worker.clone());
                let session = WorkerRef { worker: assignment.worker.clone(), epoch: assignment.epoch };
                self.with_session(&key, &session, |entry| {
                    entry.slots.advance(task.id, task.fence, SlotState::Storing);
                });
            }
            None => {
                let Some(worker) = &task.last_worker else { return };
                let key = (task.namespace.clone(), worker.clone());
                if self.awaited.remove(&key, task.id) {
                    self.mark_changed();
                }
                // A worker that is away is not awaited for what counts no more. Others are sent a cancel.
                let away = self.workers.get(&key).filter(|entry| entry.session.is_none());
                let away = away.filter(|entry| entry.slots.storing().any(|id| id == task.id));
                if let Some(fence) = away.and_then(|entry| entry.slots.superseded(task.id, None)) {
                    self.with_entry(&key, |entry| entry.slots.advance(task.id, fence, SlotState::Abandoned));
                }
            }
            _ => {}
        }
    }

    /// Awaits a worker that has left, if it has to come back.
    pub(super) fn await_worker(&mut self, entry: &WorkerEntry) {
        self.awaited.add(entry.key(), entry.agent(), entry.slots.storing());
    }

    /// Awaits a worker no longer, which is there.
    pub(super) fn greet(&mut self, worker: &WorkerKey) {
        self.awaited.0.remove(worker);
    }
}

impl Scheduler {
    /// Awaits the workers of tasks that were restored without a session.
    pub(crate) fn await_workers<'a>(&self, tasks: impl Iterator<Item = &'a Task>) {
        let mut state = self.state();
        for task in tasks.filter(|task| task.waits_for_its_worker()) {
            let Some(assignment) = &task.assignment else { continue };
            let Some(agent) = assignment.agent.clone() else { continue };
            let worker = (task.namespace.clone(), assignment.worker.clone());
            state.awaited.add(worker, (task.namespace.clone(), agent), std::iter::once(task.id));
        }
        state.mark_changed();
    }
}
