//! End of a batch: writes its records, assembles its commit, and updates what stays in memory.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rota_core::TaskId;
use rota_core::task::{DependencyState, Event, State, Task};

use super::Engine;
use super::write_set::Entry;
use crate::{AttemptEnded, Commit, Dispatch, Error, Previous, QueueLeft, TaskChange, UsageAdded, WriteTxn};

/// Adds the facts of one task's transitions to the commit, with the record as the batch leaves it.
fn report(entry: &mut Entry, commit: &mut Commit) {
    let task = || Arc::clone(&entry.task);
    let ended = entry.attempts_ended.drain(..);
    commit.attempts_ended.extend(ended.map(|attempt| AttemptEnded { task: task(), attempt }));
    let waits = entry.queue_waits.drain(..);
    commit.queue_left.extend(waits.map(|(wait, agent)| QueueLeft { task: task(), wait, agent }));
    let namespace = || entry.task.namespace.clone();
    let usage = entry.usage.drain(..);
    commit.usage.extend(usage.map(|(agent, usage)| UsageAdded { namespace: namespace(), agent, usage }));
}

impl<T: WriteTxn> Engine<T> {
    /// Writes every changed record, and returns the commit.
    pub(super) fn flush(&mut self) -> Result<Commit, Error> {
        let order = std::mem::take(&mut self.write_set.order);
        let mut commit = Commit::default();
        for &id in &order {
            let Some(entry) = self.write_set.entries.get_mut(&id) else { continue };
            if !entry.dirty {
                continue;
            }
            match &entry.payload {
                Some(payload) => self.txn.insert_task(&entry.task, entry.route, payload)?,
                None => self.txn.update_task(&entry.task, entry.route)?,
            }
            if let Some(result) = &entry.result {
                self.txn.put_result(id, result)?;
            }
            if entry.task.state.is_final()
                && entry.task.has_secrets
                && entry.before.is_none_or(|s| !s.is_final())
            {
                self.txn.delete_secrets(id)?;
            }
            let events: Arc<[Event]> = std::mem::take(&mut entry.events).into();
            let revision = if events.is_empty() { 0 } else { self.txn.append(id, &events)? };
            let dispatch = if entry.assigned && entry.task.state == State::Assigned {
                let task = Arc::clone(&entry.task);
                let payload = entry.payload.clone();
                Some(Arc::new(self.dispatch(&task, payload)?))
            } else {
                None
            };
            let Some(entry) = self.write_set.entries.get_mut(&id) else { continue };
            report(entry, &mut commit);
            commit.tasks.push(TaskChange {
                task: Arc::clone(&entry.task),
                route: entry.route,
                before: entry.before,
                events,
                revision,
                dispatch,
            });
        }
        self.write_set.order = order;
        commit.agents = std::mem::take(&mut self.write_set.agents);
        commit.routes = std::mem::take(&mut self.write_set.routes);
        commit.removed_routes = std::mem::take(&mut self.write_set.removed_routes);
        commit.next_due = self.txn.next_due()?;
        Ok(commit)
    }

    /// Collects what a worker receives besides the record.
    fn dispatch(&mut self, task: &Task, payload: Option<Bytes>) -> Result<Dispatch, Error> {
        let payload = match payload {
            Some(payload) => payload,
            None => self.txn.payload(task.id)?.unwrap_or_default(),
        };
        let secrets = if task.has_secrets { self.txn.secrets(task.id)? } else { None };
        let mut previous = Vec::new();
        for dependency in &task.dependencies {
            let DependencyState::Ended(id, _) = dependency.state else { continue };
            let (record, result) = match self.write_set.get(id) {
                Some(entry) => (Some(Arc::clone(&entry.task)), entry.result.clone()),
                None => (self.txn.task(id)?.map(Arc::new), None),
            };
            let Some(record) = record else { continue };
            let result = match result {
                None if record.has_result => self.txn.result(id)?,
                result => result,
            };
            previous.push(Previous { task: record, result });
        }
        Ok(Dispatch { payload, secrets, previous })
    }

    /// Returns the touched records after the commit, and keeps those on workers in memory.
    pub(super) fn settle_memory(&mut self) -> HashMap<TaskId, Arc<Task>> {
        let write_set = std::mem::take(&mut self.write_set);
        let mut records = HashMap::with_capacity(write_set.entries.len());
        for (id, entry) in write_set.entries {
            if let Some(worker) = entry.before_worker {
                let key = (entry.task.namespace.clone(), worker);
                if let Some(tasks) = self.by_worker.get_mut(&key) {
                    tasks.remove(&id);
                    if tasks.is_empty() {
                        self.by_worker.remove(&key);
                    }
                }
            }
            records.insert(id, Arc::clone(&entry.task));
            self.keep(entry.task);
        }
        records
    }

    /// Keeps a record in memory while the task is on a worker.
    pub(super) fn keep(&mut self, task: Arc<Task>) {
        if let Some(assignment) = &task.assignment {
            let worker = (task.namespace.clone(), assignment.worker.clone());
            self.by_worker.entry(worker).or_default().insert(task.id);
            self.live.insert(task.id, task);
        }
    }
}
