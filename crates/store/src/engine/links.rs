//! Links between tasks and to agents: missing dependencies, edges, ends and cycles.
//!
//! An edge leads from a task to one that depends on it. It exists from the dependent's creation to the dependent's end:
//! until then the other task is needed, for its end and for its result, and is not pruned.

use rota_core::TaskKey;
use rota_core::task::{Command, DependencyKey, DependencyState, State};

use super::Engine;
use super::waits::Waits;
use crate::{Backend, Error, FollowUp, Load, ScopedId, WaitKey};

/// Records that one load of the search for cycles reads.
const MAX_SEARCHED: usize = 1024;

impl<B: Backend> Engine<B> {
    /// Stores what a new task waits for, and the tasks whose results it needs.
    pub(super) fn link(&mut self, key: TaskKey) {
        let Some(entry) = self.write_set.get(key) else { return };
        let task = entry.task.clone();
        if task.state.is_final() {
            return;
        }
        let scoped = |wait| (task.namespace.clone(), wait);
        for dependency in &task.dependencies {
            match (dependency.id(), &dependency.key) {
                (Some(on), _) => {
                    if let Some(on) = self.known(&(task.namespace.clone(), on)) {
                        self.add_edge(on, key);
                    }
                }
                (None, DependencyKey::Id(on)) => self.write_set.waits.add(scoped(WaitKey::Id(*on)), key),
                (None, DependencyKey::Alias(alias)) => {
                    self.write_set.waits.add(scoped(WaitKey::Alias(alias.clone())), key);
                }
            }
        }
        if let (false, Some(agent)) = (task.agent_known, task.agent()) {
            self.write_set.waits.add(scoped(WaitKey::Agent(agent.clone())), key);
        }
    }

    fn add_edge(&mut self, on: TaskKey, dependent: TaskKey) {
        self.hold(on);
        match self.write_set.entries.get_mut(&on) {
            Some(entry) => {
                entry.has_dependents = true;
                entry.new_dependents.push(dependent);
            }
            None => self.write_set.new_dependents.entry(on).or_default().push(dependent),
        }
        self.write_set.changes.edges.push((on, dependent));
    }

    /// Moves a task without its agent back to PENDING, to wait for the agent.
    pub(super) fn without_agent(&mut self, key: TaskKey) {
        let Some(entry) = self.write_set.get(key) else { return };
        if let Some(agent) = entry.task.agent() {
            let waits = (entry.task.namespace.clone(), WaitKey::Agent(agent.clone()));
            self.write_set.waits.add(waits, key);
            self.write_set.next.push_back((key, Command::AgentDeleted));
        }
    }

    /// Notifies a task that one of its missing dependencies exists.
    pub(super) fn found(&mut self, waiter: TaskKey, key: DependencyKey, on: TaskKey) -> Result<(), Error> {
        let Some((id, state)) = self.load(on)?.map(|task| (task.id, task.state)) else { return Ok(()) };
        if self.load(waiter)?.is_none_or(|task| task.state.is_final()) {
            return Ok(());
        }
        self.add_edge(on, waiter);
        self.write_set.next.push_back((waiter, Command::DependencyFound { key, id }));
        if state.is_final() {
            self.write_set.next.push_back((waiter, Command::DependencyEnded { id, state }));
        }
        Ok(())
    }

    /// Fails every task in a dependency cycle with this one. Only a task that others wait for can close a cycle.
    pub(super) fn break_cycle(&mut self, key: TaskKey) -> Result<(), Error> {
        let Some((namespace, id)) = self.load(key)?.map(|task| (task.namespace.clone(), task.id)) else {
            return Ok(());
        };
        let waits = self.waits_from((namespace.clone(), id))?;
        for member in waits.members() {
            let (path, omitted) = waits.path(member);
            if let Some(member) = self.known(&(namespace.clone(), member)) {
                self.write_set.next.push_back((member, Command::Cycle { path, omitted }));
            }
        }
        Ok(())
    }

    /// Returns the graph of everything that a task waits for, directly or indirectly.
    fn waits_from(&mut self, start: ScopedId) -> Result<Waits, Error> {
        let (namespace, id) = start;
        let mut waits = Waits::new(id);
        while let Some(at) = waits.next() {
            let scoped = |id| (namespace.clone(), id);
            if !self.knows_id(&scoped(at)) {
                let open = std::iter::once(at).chain(waits.open()).take(MAX_SEARCHED).map(scoped);
                let unknown = open.filter(|id| !self.knows_id(id)).collect();
                self.fetch(&Load { ids: unknown, ..Load::default() })?;
            }
            let open = std::iter::once(at).chain(waits.open()).take(MAX_SEARCHED).map(scoped);
            let open: Vec<_> = open.filter_map(|id| self.known(&id)).collect();
            if open.first().is_some_and(|key| !self.knows(*key)) {
                self.load_all(&open)?;
            }
            let task = match self.find(&scoped(at))? {
                Some(key) => self.load(key)?,
                None => None,
            };
            let on = match task {
                Some(task) if task.state == State::Pending => {
                    let waiting = task.dependencies.iter().filter_map(|dependency| match dependency.state {
                        DependencyState::Waiting(on) => Some(on),
                        _ => None,
                    });
                    waiting.collect()
                }
                _ => Vec::new(),
            };
            waits.add(at, on);
        }
        Ok(waits)
    }

    /// Takes in the end of a task.
    pub(super) fn ended(&mut self, key: TaskKey) {
        let Some(entry) = self.write_set.get(key) else { return };
        let (needs, needed) = (!entry.task.dependencies.is_empty() && !entry.new, entry.has_dependents);
        if needs {
            self.write_set.changes.removed_dependents.push(key);
        }
        if needed {
            self.write_set.pending.push(FollowUp::Ended { task: key, after: TaskKey(0) });
        }
    }
}
