//! End of a batch: completes the assignments, turns the write set into what is written and what is published, and
//! updates memory once it is durable.

use std::collections::HashSet;
use std::sync::Arc;

use rota_core::task::{Event, State, Task};
use rota_core::{TaskId, TaskKey, Timestamp};

use super::entry::Entry;
use super::memory::Live;
use super::write_set::WriteSet;
use super::{Engine, KeyMap};
use crate::{
    ArtifactsKey, AttemptEnded, Backend, Changes, Commit, Dispatch, Error, Load, Previous, QueueLeft,
    ScopedId, TaskChange, UsageAdded,
};

/// Bytes of results that an assignment carries. Its worker fetches the others.
const MAX_CARRIED_RESULTS: u64 = 256 * 1024;
/// Bytes of results that all assignments of a commit carry.
const MAX_CARRIED_PER_COMMIT: u64 = 4 * 1024 * 1024;

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

/// Returns the tasks whose results an attempt of a task gets, if they have ended.
fn builds_on(task: &Task) -> impl Iterator<Item = ScopedId> {
    task.builds_on().map(|id| (task.namespace.clone(), id))
}

impl<B: Backend> Engine<B> {
    /// Decides which results the batch's assignments carry: of the first dependencies and children of each, up to
    /// [`MAX_CARRIED_RESULTS`], and of all assignments up to [`MAX_CARRIED_PER_COMMIT`].
    fn carried_results(&self) -> HashSet<(TaskKey, TaskKey)> {
        let mut carried = HashSet::new();
        let mut commit_left = MAX_CARRIED_PER_COMMIT;
        for entry in self.assigned() {
            let mut left = MAX_CARRIED_RESULTS;
            for dependency in self.previous(&entry.task) {
                let size = dependency.task.result_size;
                if (1..=left.min(commit_left)).contains(&size) {
                    left -= size;
                    commit_left -= size;
                    carried.insert((entry.task.key, dependency.task.key));
                }
            }
        }
        carried
    }

    /// Returns the entries of the dependencies and children of a task that have ended.
    fn previous(&self, task: &Task) -> impl Iterator<Item = &Entry> {
        let entries = builds_on(task).filter_map(|id| self.write_set.get(self.known(&id)?));
        entries.filter(|entry| entry.task.state.is_final())
    }

    /// Returns what a worker receives besides the record.
    fn dispatch(&self, entry: &Entry) -> Dispatch {
        let result = |entry: &Entry| {
            entry.result.clone().or_else(|| self.write_set.results.get(&entry.task.key).cloned())
        };
        let task = &entry.task;
        let is_carried = |on: &Entry| self.write_set.carried.contains(&(task.key, on.task.key));
        let previous = self.previous(task).map(|dependency| Previous {
            task: Arc::clone(&dependency.task),
            result: is_carried(dependency).then(|| result(dependency)).flatten(),
        });
        Dispatch {
            payload: entry.payload.clone().unwrap_or_default(),
            secrets: task.has_secrets.then(|| self.write_set.secrets.get(&task.key).cloned()).flatten(),
            previous: previous.collect(),
        }
    }

    fn assigned(&self) -> impl Iterator<Item = &Entry> {
        self.write_set
            .order
            .iter()
            .filter_map(|key| self.write_set.get(*key))
            .filter(|entry| is_assigned(entry))
    }

    /// Loads what the workers of the batch's assignments receive besides the records.
    pub(super) fn complete_assignments(&mut self) -> Result<(), Error> {
        let mut load = Load::default();
        for entry in self.assigned() {
            let key = entry.task.key;
            if entry.payload.is_none() {
                load.payloads.push(key);
            }
            if entry.task.has_secrets && !self.write_set.secrets.contains_key(&key) {
                load.secrets.push(key);
            }
            load.ids.extend(builds_on(&entry.task).filter(|id| !self.knows_id(id)));
        }
        load.ids.sort_unstable();
        load.ids.dedup();
        load.payload_bytes = if load.payloads.is_empty() { 0 } else { u64::MAX };
        self.fetch(&load)?;
        let dependencies = self.assigned().flat_map(|entry| builds_on(&entry.task));
        let dependencies: Vec<_> = dependencies.filter_map(|id| self.known(&id)).collect();
        self.load_all(&dependencies)?;
        dependencies.into_iter().for_each(|key| self.hold(key));
        let carried = self.carried_results();
        let is_stored = |key: &TaskKey| self.write_set.get(*key).is_some_and(|entry| entry.result.is_none());
        let mut results: Vec<_> = carried.iter().map(|(_, on)| *on).filter(is_stored).collect();
        self.write_set.carried = carried;
        results.sort_unstable();
        results.dedup();
        self.fetch(&Load { results, ..Load::default() })?;
        Ok(())
    }

    /// Returns what the batch writes, if anything, and what it publishes.
    pub(super) fn flush(&mut self, now: Timestamp) -> (Option<Changes>, Commit) {
        let order = std::mem::take(&mut self.write_set.order);
        let mut changes = std::mem::take(&mut self.write_set.changes);
        self.store_follow_ups(&mut changes);
        let mut commit = Commit::default();
        for &key in &order {
            let dispatch = match self.write_set.get(key) {
                Some(entry) if is_assigned(entry) => Some(Arc::new(self.dispatch(entry))),
                _ => None,
            };
            let Some(entry) = self.write_set.entries.get_mut(&key) else { continue };
            let (task, route) = (Arc::clone(&entry.task), entry.route);
            if entry.new {
                let payload = entry.payload.clone().unwrap_or_default();
                changes.inserted.push((Arc::clone(&task), route, payload));
            } else {
                changes.updated.push((Arc::clone(&task), route));
            }
            // Kept for dependents that the same batch assigns.
            if let Some(result) = &entry.result {
                changes.results.push((key, result.clone()));
            }
            let lists = std::mem::take(&mut entry.artifacts).into_iter();
            changes
                .artifacts
                .extend(lists.map(|(attempt, list)| (ArtifactsKey { task: key, attempt }, list)));
            let ended = task.state.is_final() && entry.before.is_none_or(|before| !before.is_final());
            if ended && task.has_secrets {
                if !entry.new {
                    changes.removed_secrets.push(key);
                }
            } else if entry.new
                && let Some(secrets) = self.write_set.secrets.get(&key)
            {
                changes.secrets.push((key, secrets.clone()));
            }
            let events: Arc<[Event]> = std::mem::take(&mut entry.events).into();
            let revision = entry.revision.filter(|_| !events.is_empty()).unwrap_or_default();
            if revision > 0 {
                changes.log.push((revision, key, Arc::clone(&events)));
            }
            report(entry, &mut commit);
            let (before, identified) = (entry.before, entry.identified);
            commit.tasks.push(TaskChange { task, route, before, events, revision, dispatch, identified });
        }
        self.write_resealed(&mut changes);
        changes.workflows = self.write_set.workflows.flush(&mut commit);
        self.set_workflows_aside(&mut changes.workflows, &mut commit);
        let accounts = self.changed_accounts();
        let write_set = &mut self.write_set;
        write_set.write_names(&mut changes);
        commit.agents = std::mem::take(&mut write_set.agent_changes);
        commit.cool_downs = std::mem::take(&mut write_set.cool_down_changes);
        commit.accounts = accounts;
        commit.documents = write_set.documents.take(&mut changes);
        changes.accounts = write_set.accounts.values().cloned().collect();
        let recounted = std::mem::take(&mut write_set.recounted).into_iter();
        let count = |route| Some((route, write_set.queues.get(&route)?.count()?));
        commit.queue_counts = recounted.filter_map(count).collect();
        commit.routes.clone_from(&write_set.new_routes);
        commit.removed_routes.clone_from(&write_set.removed_routes);
        commit.quarantined = std::mem::take(&mut write_set.quarantined);
        // A record that is met again was reported before.
        let found = std::mem::take(&mut write_set.undecodable).into_iter();
        let new: Vec<_> = found.filter(|(key, _)| !self.memory.undecodable.contains(key)).collect();
        changes.undecodable = new.iter().map(|(key, _)| *key).collect();
        let report = |(_, (id, reason)): (TaskKey, (TaskId, String))| (format!("task {id}"), reason);
        commit.undecodable.extend(new.into_iter().map(report));
        changes.routes = std::mem::take(&mut write_set.new_routes);
        changes.removed_routes = std::mem::take(&mut write_set.removed_routes);
        for (key, agent) in &write_set.agents {
            match agent {
                Some(agent) => changes.agents.push(Arc::clone(agent)),
                None => changes.removed_agents.push(key.clone()),
            }
        }
        for (key, cool_down) in &write_set.cool_downs {
            match cool_down {
                Some(cool_down) => changes.cool_downs.push(Arc::clone(cool_down)),
                None => changes.removed_cool_downs.push(key.clone()),
            }
        }
        let before = self.memory.revision;
        let changes = changes.has_rows().then(|| Changes {
            before,
            // Each write advances it, so that another writer's is always noticed.
            revision: write_set.revision.max(before + 1),
            now,
            last_route: changes.last_route.max(self.memory.last_route),
            away: self.away.to_store(),
            ..changes
        });
        commit.revision = changes.as_ref().map_or(before, |changes| changes.revision);
        (changes, commit)
    }

    /// Updates memory after the write. Returns the touched records.
    pub(super) fn settle_memory(&mut self) -> KeyMap<Arc<Task>> {
        let write_set = std::mem::take(&mut self.write_set);
        self.damage.written(write_set.agents.keys());
        let memory = &mut self.memory;
        for (key, agent) in write_set.agents {
            match agent {
                Some(agent) => memory.agents.insert(key, agent),
                None => memory.agents.remove(&key),
            };
        }
        for (key, cool_down) in write_set.cool_downs {
            match cool_down {
                Some(cool_down) => memory.cool_downs.insert(key, cool_down),
                None => memory.cool_downs.remove(&key),
            };
        }
        for (key, account) in write_set.accounts {
            memory.put_account(key, account);
        }
        for (key, change) in write_set.spenders {
            memory.add_spenders(key, change);
        }
        for (key, session) in write_set.sessions {
            match session {
                Some(session) => memory.sessions.insert(key, session),
                None => memory.sessions.remove(&key),
            };
        }
        for (route, id) in write_set.routes {
            match id {
                Some(id) => memory.add_route(route, id),
                None => memory.remove_route(&route),
            }
        }
        memory.searches.extend(write_set.searches);
        memory.offered_at = write_set.offered_at.unwrap_or(memory.offered_at);
        memory.unreported.clear();
        let mut records = KeyMap::with_capacity_and_hasher(write_set.entries.len(), Default::default());
        for (key, entry) in write_set.entries {
            if entry.revision.is_some() || !entry.new_dependents.is_empty() {
                let task = Arc::clone(&entry.task);
                memory.replace(Live { task, has_dependents: entry.has_dependents });
            }
            records.insert(key, entry.task);
        }
        records
    }
}

impl WriteSet {
    /// Adds the changed names, sessions and links to what the batch writes.
    fn write_names(&mut self, changes: &mut Changes) {
        changes.aliases = self.aliases.changed();
        let keys = self.idempotency_keys.changed().into_iter();
        changes.idempotency_keys =
            keys.filter_map(|(key, owner)| Some((key, owner.id, owner.task?))).collect();
        changes.threads = self.threads.changed();
        changes.sessions =
            self.session_rows.changed().into_iter().filter_map(|(_, row)| row.session.ok()).collect();
        let [removed_waits, waits] = self.waits.changed();
        // In addition to those of pruned tasks.
        changes.removed_waits.extend(removed_waits);
        changes.waits = waits;
        let is_over = |key: &TaskKey| self.get(*key).is_some_and(|entry| entry.task.state.is_final());
        // An edge to itself keeps the last conversation of a thread.
        changes.edges.retain(|(task, dependent)| task == dependent || !is_over(dependent));
        changes.edges.sort_unstable();
        changes.edges.dedup();
    }
}
