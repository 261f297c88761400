//! Creation, update and removal of agents, with the consequences for tasks that name them.

use std::sync::Arc;

use rota_core::spending::Scope;
use rota_core::task::{State, Task};
use rota_core::{AgentName, Namespace, Timestamp};

use super::{AgentKey, Answer, Engine};
use crate::{AgentChange, Backend, PutAgent, Refused, Reply};

impl<B: Backend> Engine<B> {
    pub(super) fn put_agent(&mut self, put: PutAgent, now: Timestamp) -> Result<Answer, Refused> {
        let mut agent = put.agent;
        let key = (agent.namespace.clone(), agent.name.clone());
        let existing = self.agent(&key).cloned();
        // One that cannot be decoded exists, and is replaced.
        match (existing.is_some() || self.is_damaged(&key), put.must_exist) {
            (false, Some(true)) => return Err(Refused::NoAgent(agent.name)),
            (true, Some(false)) => return Err(Refused::AgentExists(agent.name)),
            _ => {}
        }
        match &existing {
            Some(old)
                if old.payload == agent.payload
                    && old.capabilities == agent.capabilities
                    && old.defaults == agent.defaults
                    && old.budget == agent.budget =>
            {
                return Ok(Reply::Agent(Arc::clone(old)).into());
            }
            Some(old) => {
                agent.created_at = old.created_at;
                agent.generation = old.generation + 1;
            }
            None => {
                agent.created_at = now;
                agent.generation = 1;
            }
        }
        agent.updated_at = now;
        let agent = Arc::new(agent);
        self.write_set.agents.insert(key.clone(), Some(Arc::clone(&agent)));
        self.write_set.agent_changes.push(AgentChange { agent: Arc::clone(&agent), deleted: false });
        if existing.as_ref().is_none_or(|old| old.budget != agent.budget) {
            self.budget_changed(&(key.0.clone(), Scope::Agent(key.1.clone())), now);
        }
        if existing.is_none_or(|old| old.defaults != agent.defaults) {
            self.update_ready_tasks(&key);
        }
        Ok(Reply::Agent(agent).into())
    }

    pub(super) fn delete_agent(
        &mut self,
        namespace: Namespace,
        name: AgentName,
        now: Timestamp,
    ) -> Result<Answer, Refused> {
        let key = (namespace, name);
        let known = self.agent(&key).cloned();
        // Of one that cannot be decoded, only the name is known, and only to the engine.
        if known.is_none() && !self.is_damaged(&key) {
            return Err(Refused::NoAgent(key.1));
        }
        self.write_set.agents.insert(key.clone(), None);
        self.write_set.agent_changes.extend(known.map(|agent| AgentChange { agent, deleted: true }));
        self.budget_changed(&(key.0.clone(), Scope::Agent(key.1.clone())), now);
        self.update_ready_tasks(&key);
        Ok(Reply::Deleted.into())
    }

    /// Updates the ready tasks that name a changed agent: those of the batch, then the stored ones.
    fn update_ready_tasks(&mut self, agent: &AgentKey) {
        let is_ready = |task: &Task| {
            task.state == State::Queued && task.agent() == Some(&agent.1) && task.namespace == agent.0
        };
        let entries = self.write_set.entries.values().filter(|entry| is_ready(&entry.task));
        let mut ready: Vec<_> = entries.map(|entry| entry.task.key).collect();
        ready.sort_unstable();
        for key in ready {
            self.match_agent(key, agent);
        }
        self.agent_changed(agent);
    }
}
