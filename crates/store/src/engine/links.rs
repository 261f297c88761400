//! Links between tasks and to agents: missing dependencies, edges and ends.
//!
//! An edge leads from a task to one that depends on it. It exists from the dependent's creation to the dependent's end:
//! until then the other task is needed, for its end and for its result, and is not pruned.

use rota_core::TaskKey;
use rota_core::task::{Command, DependencyKey};

use super::Engine;
use crate::{Backend, Error, FollowUp, WaitKey};

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

    pub(super) fn add_edge(&mut self, on: TaskKey, dependent: TaskKey) {
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

    /// Takes in the end of a task.
    pub(super) fn ended(&mut self, key: TaskKey) {
        let Some(entry) = self.write_set.get(key) else { return };
        let (needs, needed) = (!entry.task.dependencies.is_empty() && !entry.new, entry.has_dependents);
        let (id, state, before) = (entry.task.id, entry.task.state, entry.task.waits_in_thread());
        let (in_thread, step) = (entry.task.thread.is_some(), entry.task.step.clone());
        if in_thread {
            self.write_set.ended_in_threads.push(key);
        }
        if let Some(step) = step {
            self.step_task_ended(&step, state);
        }
        if needs {
            self.write_set.changes.removed_dependents.push(key);
        }
        if needed {
            let until = TaskKey(self.write_set.revision);
            let ended = FollowUp::Ended { task: key, id, state, after: TaskKey(0), until, before };
            self.write_set.pending.push(ended);
        }
    }
}
