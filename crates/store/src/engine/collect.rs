//! Loading: the keys that commands need, and the rows that a load returns.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::task::{self, DependencyKey, State, Task};
use rota_core::{RouteId, TaskId, Timestamp};

use super::Engine;
use crate::{Backend, Command, Create, Error, ExpiredKeys, Keys, ReadyKey, Stored, WaitKey};

/// Records that one load reads for follow-ups.
pub(super) const MAX_ROUND: usize = 1024;

/// Whether a command may end its task, which then needs its dependents.
fn may_end(command: &task::Command) -> bool {
    use task::Command::{
        Accept, AgentAppeared, AgentDeleted, Assign, DependencyEnded, DependencyFound, GiveInput, Report,
        Resume,
    };
    match command {
        Accept(_)
        | AgentAppeared { .. }
        | AgentDeleted
        | Assign { .. }
        | DependencyFound { .. }
        | GiveInput { .. }
        | Report { .. }
        | Resume { .. } => false,
        DependencyEnded { state, .. } => *state != State::Succeeded,
        _ => true,
    }
}

fn collect_create(create: &Create, keys: &mut Keys) {
    let task = &create.task;
    keys.tasks.push(task.id);
    keys.waits.push((task.namespace.clone(), WaitKey::Id(task.id)));
    if let Some(key) = &create.key {
        keys.keys.push((task.namespace.clone(), key.clone()));
    }
    if let Some(alias) = &task.alias {
        keys.waits.push((task.namespace.clone(), WaitKey::Alias(alias.clone())));
    }
    for dependency in &task.dependencies {
        match &dependency.key {
            DependencyKey::Id(id) => keys.tasks.push(*id),
            DependencyKey::Alias(alias) => keys.aliases.push((task.namespace.clone(), alias.clone())),
        }
    }
}

impl<B: Backend> Engine<B> {
    /// Returns the keys that a batch is known to need, without those in memory.
    pub(super) fn collect(&self, batch: &[Command], now: Timestamp) -> Keys {
        let mut keys = Keys::default();
        let mut slots: BTreeMap<RouteId, usize> = BTreeMap::new();
        for command in batch {
            match command {
                Command::Create(create) => collect_create(create, &mut keys),
                Command::Task { id, command, .. } => {
                    keys.tasks.push(*id);
                    if may_end(command) {
                        keys.dependents.push(*id);
                    }
                }
                Command::Claim(claim) => {
                    for route in &claim.routes {
                        let wanted = slots.entry(*route).or_default();
                        *wanted = wanted.saturating_add(claim.slots);
                    }
                }
                Command::Tick { limit } => {
                    let most = keys.due.map_or(0, |(_, most)| most);
                    keys.due = Some((now, most.max(*limit)));
                }
                Command::OpenSession(open) => {
                    keys.sessions.push((open.namespace.clone(), open.worker.clone()));
                    keys.tasks.extend(open.running.iter().map(|(id, _)| *id));
                }
                Command::EndSession(end) => {
                    keys.sessions.push((end.namespace.clone(), end.session.worker.clone()));
                }
                Command::PutAgent(put) => {
                    let wait = WaitKey::Agent(put.agent.name.clone());
                    keys.waits.push((put.agent.namespace.clone(), wait));
                }
                Command::DeleteAgent { .. } => {}
                // A second one in the same batch finds the rows of the first.
                Command::Prune(prune) => {
                    keys.expired.get_or_insert(ExpiredKeys {
                        ended_before: prune.ended_before,
                        left_before: prune.left_before,
                        limit: prune.limit,
                    });
                }
            }
        }
        let claimed = slots.into_iter().filter(|(_, wanted)| *wanted > 0);
        keys.ready = claimed.map(|(route, limit)| ReadyKey { route, limit, payloads: true }).collect();
        keys.tasks.retain(|id| !self.knows(*id));
        for ids in [&mut keys.tasks, &mut keys.dependents] {
            ids.sort_unstable();
            ids.dedup();
        }
        keys
    }

    /// Loads rows, and takes them into the batch.
    pub(super) fn fetch(&mut self, keys: &Keys) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut rows = self.backend.load(keys)?;
        self.write_set.cache.learn(keys, &mut rows);
        for (id, task) in rows.tasks {
            self.receive(id, task);
        }
        for id in &keys.tasks {
            if !self.knows(*id) {
                self.write_set.cache.absent.insert(*id);
            }
        }
        if keys.due.is_some() {
            self.write_set.cache.due = Some(rows.due.iter().map(|(id, _)| *id).collect());
            for (id, task) in rows.due {
                self.receive(id, task);
            }
        }
        for (key, (route, rows)) in keys.ready.iter().zip(rows.ready) {
            let last = rows.last().map(|row| (row.rank, row.id));
            let whole = rows.len() < key.limit;
            for row in rows {
                let is_new = !self.knows(row.id);
                self.receive(row.id, row.task);
                if is_new && let Some(entry) = self.write_set.entries.get_mut(&row.id) {
                    entry.payload = row.payload;
                }
            }
            self.write_set.queues.entry(route).or_default().learn(key.limit, last, whole);
        }
        self.write_set.results.extend(rows.results);
        self.write_set.secrets.extend(rows.secrets);
        for (id, payload) in rows.payloads {
            if let Some(entry) = self.write_set.entries.get_mut(&id) {
                entry.payload = Some(payload);
            }
        }
        Ok(())
    }

    /// Takes a stored record into the batch, unless the batch has a newer one.
    pub(super) fn receive(&mut self, id: TaskId, task: Stored<Task>) {
        if self.knows(id) {
            return;
        }
        match task {
            Ok(task) => self.take_up(Arc::new(task)),
            Err(reason) => {
                self.write_set.undecodable.insert(id, reason);
            }
        }
    }

    /// Loads what the next follow-ups need: those that wait in the queue, and one that was taken out of it.
    pub(super) fn fetch_follow_ups(&mut self, next: (TaskId, &task::Command)) -> Result<(), Error> {
        let mut keys = Keys::default();
        let waiting = self.write_set.follow.iter().map(|(id, command)| (*id, command));
        for (id, command) in std::iter::once(next).chain(waiting).take(MAX_ROUND) {
            keys.tasks.push(id);
            if may_end(command) {
                keys.dependents.push(id);
            }
        }
        self.fetch_unknown(keys)
    }

    /// Whether a follow-up's rows are in memory.
    pub(super) fn is_ready_for(&self, id: TaskId, command: &task::Command) -> bool {
        self.knows(id) && (!may_end(command) || self.write_set.cache.dependents.knows(&id))
    }

    /// Loads the records and dependents among these keys that are not known.
    pub(super) fn fetch_unknown(&mut self, mut keys: Keys) -> Result<(), Error> {
        keys.tasks.retain(|id| !self.knows(*id));
        keys.dependents.retain(|id| !self.write_set.cache.dependents.knows(id));
        for ids in [&mut keys.tasks, &mut keys.dependents] {
            ids.sort_unstable();
            ids.dedup();
        }
        self.fetch(&keys)
    }
}
