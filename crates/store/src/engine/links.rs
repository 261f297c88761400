//! What binds tasks to each other and to agents: waits, edges, ends and cycles.

use rota_core::TaskId;
use rota_core::task::{Command, DependencyKey, DependencyState, State};

use super::Engine;
use super::waits::Waits;
use crate::{Error, Tables, WaitKey};

impl<T: Tables> Engine<T> {
    /// Notes what a new PENDING task waits for.
    pub(super) fn link(&mut self, id: TaskId) -> Result<(), Error> {
        let Some(entry) = self.working.get(id) else { return Ok(()) };
        let task = std::sync::Arc::clone(&entry.task);
        for dependency in &task.dependencies {
            match (dependency.state, &dependency.key) {
                (DependencyState::Waiting(on), _) => self.tables.put_edge(on, id)?,
                (DependencyState::Missing, DependencyKey::Id(on)) => {
                    self.tables.put_wait(&task.namespace, &WaitKey::Id(*on), id)?;
                }
                (DependencyState::Missing, DependencyKey::Alias(alias)) => {
                    self.tables.put_wait(&task.namespace, &WaitKey::Alias(alias.clone()), id)?;
                }
                (DependencyState::Ended(..), _) => {}
            }
        }
        if let (false, Some(agent)) = (task.agent_known, task.agent()) {
            self.tables.put_wait(&task.namespace, &WaitKey::Agent(agent.clone()), id)?;
        }
        Ok(())
    }

    /// A task's agent is gone, or was gone before it became ready: it waits for one to come.
    pub(super) fn without_agent(&mut self, id: TaskId) -> Result<(), Error> {
        let Some(entry) = self.working.get(id) else { return Ok(()) };
        if let Some(agent) = entry.task.agent() {
            let (namespace, key) = (entry.task.namespace.clone(), WaitKey::Agent(agent.clone()));
            self.tables.put_wait(&namespace, &key, id)?;
            self.working.follow.push_back((id, Command::AgentGone));
        }
        Ok(())
    }

    /// A dependency that did not exist exists now.
    pub(super) fn found(&mut self, waiter: TaskId, key: DependencyKey, id: TaskId) -> Result<(), Error> {
        let ended = self.load(id)?.map(|task| task.state).filter(|state| state.is_final());
        self.working.follow.push_back((waiter, Command::DependencyFound { key, id }));
        match ended {
            Some(state) => self.working.follow.push_back((waiter, Command::DependencyEnded { id, state })),
            None => self.tables.put_edge(id, waiter)?,
        }
        Ok(())
    }

    /// A task has ended: its dependents hear of it.
    pub(super) fn ended(&mut self, id: TaskId, state: State) -> Result<(), Error> {
        for dependent in self.tables.take_edges(id)? {
            self.working.follow.push_back((dependent, Command::DependencyEnded { id, state }));
        }
        Ok(())
    }

    /// Fails every task that is in a cycle with this one. Only a task that others waited for can close one.
    pub(super) fn break_cycle(&mut self, id: TaskId) -> Result<(), Error> {
        let waits = self.waits_from(id)?;
        for member in waits.members() {
            let path = waits.path(member);
            self.working.follow.push_back((member, Command::Cycle { path }));
        }
        Ok(())
    }

    /// Everything that a task waits for, at any remove.
    fn waits_from(&mut self, start: TaskId) -> Result<Waits, Error> {
        let mut waits = Waits::new(start);
        while let Some(at) = waits.next() {
            let on = match self.load(at)? {
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

    /// Lets tasks that waited for an agent go on.
    pub(super) fn agent_appeared(&mut self, agent: &rota_core::agent::Agent) -> Result<(), Error> {
        let key = WaitKey::Agent(agent.name.clone());
        for waiter in self.tables.take_waits(&agent.namespace, &key)? {
            self.working.follow.push_back((waiter, Command::AgentAppeared { defaults: agent.defaults }));
        }
        Ok(())
    }
}
