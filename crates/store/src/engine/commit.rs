//! End of a batch: completes the assignments, turns the write set into what is written and what is published, and
//! updates memory once it is durable.

use std::collections::HashMap;
use std::sync::Arc;

use rota_core::task::{DependencyState, Event, State, Task};
use rota_core::{TaskId, Timestamp};

use super::Engine;
use super::write_set::{Entry, WriteSet};
use crate::{
    AttemptEnded, Backend, Changes, Commit, Dispatch, Error, Keys, Previous, QueueLeft, TaskChange,
    UsageAdded,
};

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

fn is_assigned(entry: &Entry) -> bool {
    entry.assigned && entry.task.state == State::Assigned
}

/// Returns the dependencies of a task that have ended.
fn ended_dependencies(task: &Task) -> impl Iterator<Item = TaskId> {
    task.dependencies.iter().filter_map(|dependency| match dependency.state {
        DependencyState::Ended(id, _) => Some(id),
        _ => None,
    })
}

impl WriteSet {
    /// Returns what a worker receives besides the record.
    fn dispatch(&self, entry: &Entry) -> Dispatch {
        let previous = ended_dependencies(&entry.task).filter_map(|id| {
            let dependency = self.get(id)?;
            let result = dependency.result.clone().or_else(|| self.results.get(&id).cloned());
            Some(Previous { task: Arc::clone(&dependency.task), result })
        });
        let task = &entry.task;
        Dispatch {
            payload: entry.payload.clone().unwrap_or_default(),
            secrets: task.has_secrets.then(|| self.secrets.get(&task.id).cloned()).flatten(),
            previous: previous.collect(),
        }
    }
}

impl<B: Backend> Engine<B> {
    /// Loads what the workers of the batch's assignments receive besides the records.
    pub(super) fn complete_assignments(&mut self) -> Result<(), Error> {
        let mut keys = Keys::default();
        for entry in self.write_set.order.iter().filter_map(|id| self.write_set.get(*id)) {
            if !is_assigned(entry) {
                continue;
            }
            let id = entry.task.id;
            if entry.payload.is_none() {
                keys.payloads.push(id);
            }
            if entry.task.has_secrets && !self.write_set.secrets.contains_key(&id) {
                keys.secrets.push(id);
            }
            for dependency in ended_dependencies(&entry.task) {
                keys.tasks.push(dependency);
                if self.write_set.get(dependency).is_none_or(|entry| entry.result.is_none()) {
                    keys.results.push(dependency);
                }
            }
        }
        keys.results.sort_unstable();
        keys.results.dedup();
        self.fetch_unknown(keys)
    }

    /// Returns what the batch writes, if anything, and what it publishes.
    pub(super) fn flush(&mut self, now: Timestamp) -> (Option<Changes>, Commit) {
        let order = std::mem::take(&mut self.write_set.order);
        let mut changes = std::mem::take(&mut self.write_set.changes);
        let mut commit = Commit::default();
        let mut revision = self.revision;
        for &id in &order {
            let dispatch = match self.write_set.get(id) {
                Some(entry) if is_assigned(entry) => Some(Arc::new(self.write_set.dispatch(entry))),
                _ => None,
            };
            let Some(entry) = self.write_set.entries.get_mut(&id) else { continue };
            let (task, route) = (Arc::clone(&entry.task), entry.route);
            if entry.new {
                let payload = entry.payload.clone().unwrap_or_default();
                changes.inserted.push((Arc::clone(&task), route, payload));
            } else {
                changes.updated.push((Arc::clone(&task), route));
            }
            // Kept for dependents that the same batch assigns.
            if let Some(result) = &entry.result {
                changes.results.push((id, result.clone()));
            }
            let ended = task.state.is_final() && entry.before.is_none_or(|before| !before.is_final());
            if ended && task.has_secrets {
                if !entry.new {
                    changes.removed_secrets.push(id);
                }
            } else if entry.new
                && let Some(secrets) = self.write_set.secrets.get(&id)
            {
                changes.secrets.push((id, secrets.clone()));
            }
            let events: Arc<[Event]> = std::mem::take(&mut entry.events).into();
            let mut logged = 0;
            if !events.is_empty() {
                revision += 1;
                logged = revision;
                changes.log.push((revision, id, Arc::clone(&events)));
            }
            report(entry, &mut commit);
            commit.tasks.push(TaskChange {
                task,
                route,
                before: entry.before,
                events,
                revision: logged,
                dispatch,
            });
        }
        let write_set = &mut self.write_set;
        write_set.cache.write_to(&mut changes);
        commit.agents = std::mem::take(&mut write_set.agent_changes);
        let recounted = std::mem::take(&mut write_set.recounted).into_iter();
        let count = |route| Some((route, write_set.queues.get(&route)?.count()?));
        commit.queue_counts = recounted.filter_map(count).collect();
        commit.routes.clone_from(&write_set.new_routes);
        commit.removed_routes.clone_from(&write_set.removed_routes);
        // A record that is met again was reported before.
        let found = std::mem::take(&mut write_set.undecodable).into_iter();
        commit.undecodable = found.filter(|(id, _)| !self.undecodable.contains(id)).collect();
        changes.undecodable = commit.undecodable.iter().map(|(id, _)| *id).collect();
        changes.routes = std::mem::take(&mut write_set.new_routes);
        changes.removed_routes = std::mem::take(&mut write_set.removed_routes);
        for (key, agent) in &write_set.agents {
            match agent {
                Some(agent) => changes.agents.push(Arc::clone(agent)),
                None => changes.removed_agents.push(key.clone()),
            }
        }
        let changes = changes.has_rows().then(|| Changes {
            before: self.revision,
            revision,
            now,
            last_route: changes.last_route.max(self.last_route),
            ..changes
        });
        (changes, commit)
    }

    /// Updates memory after the write. Returns the touched records.
    pub(super) fn settle_memory(&mut self) -> HashMap<TaskId, Arc<Task>> {
        let write_set = std::mem::take(&mut self.write_set);
        for (key, agent) in write_set.agents {
            match agent {
                Some(agent) => self.agents.insert(key, agent),
                None => self.agents.remove(&key),
            };
        }
        for (key, session) in write_set.sessions {
            match session {
                Some(session) => self.sessions.insert(key, session),
                None => self.sessions.remove(&key),
            };
        }
        for (route, id) in write_set.routes {
            match id {
                Some(id) => self.routes.insert(route, id),
                None => self.routes.remove(&route),
            };
        }
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
