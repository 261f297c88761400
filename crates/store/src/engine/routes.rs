//! Routes of tasks, and the agents that they match.

use std::sync::Arc;

use rota_core::task::{Command, Task};
use rota_core::{RouteId, TaskKey};

use super::{AgentKey, Engine};
use crate::Backend;

impl<B: Backend> Engine<B> {
    /// Gives a ready task its agent's current limits, whichever of the two was created or changed last; without the agent
    /// it waits for it.
    pub(super) fn match_agent(&mut self, key: TaskKey, agent: &AgentKey) {
        let Some(entry) = self.write_set.get(key) else { return };
        let defaults = entry.task.defaults;
        match self.agent(agent).map(|agent| agent.defaults) {
            None if self.is_damaged(agent) => {}
            None => self.without_agent(key),
            Some(current) if current != defaults => {
                self.write_set.next.push_back((key, Command::AgentAppeared { defaults: current }));
            }
            Some(_) => {}
        }
    }

    /// Lets a task that is not ready wait on the route of its present target.
    pub(super) fn reroute(&mut self, key: TaskKey) {
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { return };
        let route = self.route(&task);
        if let Some(entry) = self.write_set.entries.get_mut(&key) {
            entry.route = route;
        }
    }

    pub(super) fn route(&mut self, task: &Task) -> RouteId {
        let route = task.route();
        let known = self
            .write_set
            .routes
            .get(&route)
            .copied()
            .unwrap_or_else(|| self.memory.routes.get(&route).copied());
        known.unwrap_or_else(|| {
            let changes = &mut self.write_set.changes;
            changes.last_route = changes.last_route.max(self.memory.last_route) + 1;
            let id = RouteId(changes.last_route);
            self.write_set.routes.insert(route.clone(), Some(id));
            self.write_set.new_routes.push((id, route));
            id
        })
    }
}
