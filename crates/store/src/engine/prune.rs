//! Removing what nobody needs any more, a bounded part at a time.

use std::collections::HashSet;

use rota_core::Timestamp;
use rota_core::target::{Route, Target};

use super::{Answer, Engine};
use crate::{Error, Prune, Refused, Reply, Tables};

impl<T: Tables> Engine<T> {
    pub(super) fn prune(&mut self, prune: Prune, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        let mut count = self.tables.delete_sessions(prune.left_before, prune.limit)?;
        if let Some(before) = prune.ended_before {
            count += self.tables.delete_keys(before, prune.limit)?;
            count += self.prune_tasks(before, prune.limit, now)?;
        }
        count += self.prune_routes(prune.limit)?;
        Ok(Ok(Reply::Pruned(count).into()))
    }

    fn prune_tasks(&mut self, before: Timestamp, limit: usize, now: Timestamp) -> Result<usize, Error> {
        let mut count = 0;
        for id in self.tables.ended_before(before, limit)? {
            if self.working.holds(id) {
                continue;
            }
            if let Some(task) = self.tables.task(id)?.filter(|task| task.state.is_final()) {
                self.tables.delete_task(&task, now)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Only a ready task is looked for by its route: any other one finds or makes it anew when it becomes ready.
    fn prune_routes(&mut self, limit: usize) -> Result<usize, Error> {
        let touched: HashSet<_> = self.working.entries().map(|entry| entry.route).collect();
        let idle = |(route, id): &(&Route, _)| !touched.contains(id) && !self.stands_behind(route);
        let idle = self.routes.iter().map(|(route, id)| (route, *id)).filter(idle);
        let mut idle: Vec<_> = idle.map(|(route, id)| (id, route.clone())).collect();
        idle.sort_unstable_by_key(|(id, _)| *id);
        let mut count = 0;
        for (id, route) in idle {
            if count >= limit {
                break;
            }
            // A task with a worker of its own is found by its route for as long as it goes on.
            if let Target::Task { id: task, .. } = &route.target
                && self.tables.task(*task)?.is_some_and(|task| !task.state.is_final())
            {
                continue;
            }
            if self.tables.ready(id, 1)?.is_empty() {
                self.tables.delete_route(id)?;
                self.routes.remove(&route);
                self.working.gone_routes.push(id);
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether more tasks are to be expected on a route: removing it would only slow down the next one.
    fn stands_behind(&self, route: &Route) -> bool {
        match &route.target {
            Target::Agent(agent) => self.agents.contains_key(&(route.namespace.clone(), agent.clone())),
            Target::Worker(worker) => self.sessions.contains_key(&(route.namespace.clone(), worker.clone())),
            Target::Capabilities(_) | Target::Task { .. } => false,
        }
    }
}
