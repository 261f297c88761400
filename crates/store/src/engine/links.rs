//! Links between tasks and to agents: missing dependencies, edges, ends and cycles.

use rota_core::TaskId;
use rota_core::task::{Command, DependencyKey, DependencyState, State};

use super::Engine;
use super::collect::MAX_ROUND;
use super::waits::Waits;
use crate::{Backend, Error, Keys, WaitKey, WaitsKey};

impl<B: Backend> Engine<B> {
    /// Stores what a new PENDING task waits for.
    pub(super) fn link(&mut self, id: TaskId) {
        let Some(entry) = self.write_set.entries.get(&id) else { return };
        let (task, cache) = (&entry.task, &mut self.write_set.cache);
        let mut wait = |key| cache.waits.add((task.namespace.clone(), key), id);
        for dependency in &task.dependencies {
            match (dependency.state, &dependency.key) {
                (DependencyState::Waiting(on), _) => cache.dependents.add(on, id),
                (DependencyState::Missing, DependencyKey::Id(on)) => wait(WaitKey::Id(*on)),
                (DependencyState::Missing, DependencyKey::Alias(alias)) => {
                    wait(WaitKey::Alias(alias.clone()))
                }
                (DependencyState::Ended(..), _) => {}
            }
        }
        if let (false, Some(agent)) = (task.agent_known, task.agent()) {
            wait(WaitKey::Agent(agent.clone()));
        }
    }

    /// Moves a task without its agent back to PENDING, to wait for the agent.
    pub(super) fn without_agent(&mut self, id: TaskId) {
        let Some(entry) = self.write_set.get(id) else { return };
        if let Some(agent) = entry.task.agent() {
            let key = (entry.task.namespace.clone(), WaitKey::Agent(agent.clone()));
            self.write_set.cache.waits.add(key, id);
            self.write_set.follow.push_back((id, Command::AgentDeleted));
        }
    }

    pub(super) fn found(&mut self, waiter: TaskId, key: DependencyKey, id: TaskId) -> Result<(), Error> {
        let ended = self.load(id)?.map(|task| task.state).filter(|state| state.is_final());
        self.write_set.follow.push_back((waiter, Command::DependencyFound { key, id }));
        match ended {
            Some(state) => self.write_set.follow.push_back((waiter, Command::DependencyEnded { id, state })),
            None => self.write_set.cache.dependents.add(id, waiter),
        }
        Ok(())
    }

    /// Notifies the dependents of an ended task.
    pub(super) fn ended(&mut self, id: TaskId, state: State) -> Result<(), Error> {
        if !self.write_set.cache.dependents.knows(&id) {
            self.fetch(&Keys { dependents: vec![id], ..Keys::default() })?;
        }
        for dependent in self.write_set.cache.dependents.take(&id) {
            self.write_set.follow.push_back((dependent, Command::DependencyEnded { id, state }));
        }
        Ok(())
    }

    /// Fails every task in a dependency cycle with this one. Only a task that others wait for can close a cycle.
    pub(super) fn break_cycle(&mut self, id: TaskId) -> Result<(), Error> {
        let waits = self.waits_from(id)?;
        for member in waits.members() {
            let (path, omitted) = waits.path(member);
            self.write_set.follow.push_back((member, Command::Cycle { path, omitted }));
        }
        Ok(())
    }

    /// Returns the graph of everything that a task waits for, directly or indirectly.
    fn waits_from(&mut self, start: TaskId) -> Result<Waits, Error> {
        let mut waits = Waits::new(start);
        while let Some(at) = waits.next() {
            if !self.knows(at) {
                let open = std::iter::once(at).chain(waits.open()).take(MAX_ROUND);
                self.fetch_unknown(Keys { tasks: open.collect(), ..Keys::default() })?;
            }
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

    /// Removes and returns the tasks that wait for a missing object.
    pub(super) fn take_waits(&mut self, key: WaitsKey) -> Result<Vec<TaskId>, Error> {
        if !self.write_set.cache.waits.knows(&key) {
            self.fetch(&Keys { waits: vec![key.clone()], ..Keys::default() })?;
        }
        Ok(self.write_set.cache.waits.take(&key))
    }

    /// Resumes the tasks that waited for an agent.
    pub(super) fn agent_appeared(&mut self, agent: &rota_core::agent::Agent) -> Result<(), Error> {
        let key = WaitKey::Agent(agent.name.clone());
        for waiter in self.take_waits((agent.namespace.clone(), key))? {
            self.write_set.follow.push_back((waiter, Command::AgentAppeared { defaults: agent.defaults }));
        }
        Ok(())
    }
}
