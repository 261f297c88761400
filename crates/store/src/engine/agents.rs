//! Creation, update and removal of agents, with the consequences for tasks that name them.

use std::sync::Arc;

use rota_core::target::Route;
use rota_core::task::{Command, State, Task};
use rota_core::{AgentName, Namespace, TaskId, Timestamp};

use super::{Answer, Engine};
use crate::{AgentChange, Backend, Error, Keys, PutAgent, ReadyKey, Refused, Reply};

impl<B: Backend> Engine<B> {
    pub(super) fn put_agent(
        &mut self,
        put: PutAgent,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let mut agent = put.agent;
        let key = (agent.namespace.clone(), agent.name.clone());
        let existing = self.agent(&key).cloned();
        match (&existing, put.must_exist) {
            (None, Some(true)) => return Ok(Err(Refused::NoAgent(agent.name))),
            (Some(_), Some(false)) => return Ok(Err(Refused::AgentExists(agent.name))),
            _ => {}
        }
        match &existing {
            Some(old)
                if old.payload == agent.payload
                    && old.capabilities == agent.capabilities
                    && old.defaults == agent.defaults =>
            {
                return Ok(Ok(Reply::Agent(Arc::clone(old)).into()));
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
        self.write_set.agents.insert(key, Some(Arc::clone(&agent)));
        self.write_set.agent_changes.push(AgentChange { agent: Arc::clone(&agent), deleted: false });
        match existing {
            None => self.agent_appeared(&agent)?,
            Some(old) if old.defaults != agent.defaults => {
                for id in self.ready_for(&agent.namespace, &agent.name)? {
                    self.write_set
                        .follow
                        .push_back((id, Command::AgentAppeared { defaults: agent.defaults }));
                }
            }
            Some(_) => {}
        }
        Ok(Ok(Reply::Agent(agent).into()))
    }

    pub(super) fn delete_agent(
        &mut self,
        namespace: &Namespace,
        name: &AgentName,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let key = (namespace.clone(), name.clone());
        let Some(agent) = self.agent(&key).cloned() else {
            return Ok(Err(Refused::NoAgent(name.clone())));
        };
        self.write_set.agents.insert(key, None);
        self.write_set.agent_changes.push(AgentChange { agent, deleted: true });
        for id in self.ready_for(namespace, name)? {
            self.without_agent(id);
        }
        self.follow_up(now)?;
        Ok(Ok(Reply::Deleted.into()))
    }

    /// Returns the ready tasks that name an agent, in the current state of the batch.
    fn ready_for(&mut self, namespace: &Namespace, name: &AgentName) -> Result<Vec<TaskId>, Error> {
        // The agent's route, and those of isolated tasks of the agent.
        let ours = |route: &Route| route.namespace == *namespace && route.target.agent() == Some(name);
        let routes = self.routes.iter().filter(|(route, _)| ours(route)).map(|(_, id)| *id);
        let mut routes: Vec<_> = routes.collect();
        routes.sort_unstable();
        let all = |route| ReadyKey { route, limit: usize::MAX, payloads: false };
        let ready = routes.into_iter().map(all).collect();
        self.fetch(&Keys { ready, ..Keys::default() })?;
        let is_ours = |task: &Task| {
            task.state == State::Queued && task.namespace == *namespace && task.agent() == Some(name)
        };
        let entries = self.write_set.entries().filter(|entry| is_ours(&entry.task));
        let mut ids: Vec<_> = entries.map(|entry| entry.task.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}
