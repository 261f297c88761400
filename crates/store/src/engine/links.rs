//! Links between tasks and to agents: missing dependencies, edges, ends and cycles.

use rota_core::TaskId;
use rota_core::task::{Command, DependencyKey, DependencyState, State};

use super::Engine;
use super::waits::Waits;
use crate::{Error, WaitKey, WriteTxn};

impl<T: WriteTxn> Engine<T> {
    /// Stores what a new PENDING task waits for.
    pub(super) fn link(&mut self, id: TaskId) -> Result<(), Error> {
        let Some(entry) = self.write_set.get(id) else { return Ok(()) };
        let task = std::sync::Arc::clone(&entry.task);
        for dependency in &task.dependencies {
            match (dependency.state, &dependency.key) {
                (DependencyState::Waiting(on), _) => self.txn.put_edge(on, id)?,
                (DependencyState::Missing, DependencyKey::Id(on)) => {
                    self.txn.put_wait(&task.namespace, &WaitKey::Id(*on), id)?;
                }
                (DependencyState::Missing, DependencyKey::Alias(alias)) => {
                    self.txn.put_wait(&task.namespace, &WaitKey::Alias(alias.clone()), id)?;
                }
                (DependencyState::Ended(..), _) => {}
            }
        }
        if let (false, Some(agent)) = (task.agent_known, task.agent()) {
            self.txn.put_wait(&task.namespace, &WaitKey::Agent(agent.clone()), id)?;
        }
        Ok(())
    }

    /// Moves a task without its agent back to PENDING, to wait for the agent.
    pub(super) fn without_agent(&mut self, id: TaskId) -> Result<(), Error> {
        let Some(entry) = self.write_set.get(id) else { return Ok(()) };
        if let Some(agent) = entry.task.agent() {
            let (namespace, key) = (entry.task.namespace.clone(), WaitKey::Agent(agent.clone()));
            self.txn.put_wait(&namespace, &key, id)?;
            self.write_set.follow.push_back((id, Command::AgentDeleted));
        }
        Ok(())
    }

    pub(super) fn found(&mut self, waiter: TaskId, key: DependencyKey, id: TaskId) -> Result<(), Error> {
        let ended = self.load(id)?.map(|task| task.state).filter(|state| state.is_final());
        self.write_set.follow.push_back((waiter, Command::DependencyFound { key, id }));
        match ended {
            Some(state) => self.write_set.follow.push_back((waiter, Command::DependencyEnded { id, state })),
            None => self.txn.put_edge(id, waiter)?,
        }
        Ok(())
    }

    /// Notifies the dependents of an ended task.
    pub(super) fn ended(&mut self, id: TaskId, state: State) -> Result<(), Error> {
        for dependent in self.txn.take_edges(id)? {
            self.write_set.follow.push_back((dependent, Command::DependencyEnded { id, state }));
        }
        Ok(())
    }

    /// Fails every task in a dependency cycle with this one. Only a task that others wait for can close a cycle.
    pub(super) fn break_cycle(&mut self, id: TaskId) -> Result<(), Error> {
        let waits = self.waits_from(id)?;
        for member in waits.members() {
            let path = waits.path(member);
            self.write_set.follow.push_back((member, Command::Cycle { path }));
        }
        Ok(())
    }

    /// Returns the graph of everything that a task waits for, directly or indirectly.
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

    /// Resumes the tasks that waited for an agent.
    pub(super) fn agent_appeared(&mut self, agent: &rota_core::agent::Agent) -> Result<(), Error> {
        let key = WaitKey::Agent(agent.name.clone());
        for waiter in self.txn.take_waits(&agent.namespace, &key)? {
            self.write_set.follow.push_back((waiter, Command::AgentAppeared { defaults: agent.defaults }));
        }
        Ok(())
    }
}
