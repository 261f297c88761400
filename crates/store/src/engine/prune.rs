//! Pruning of expired tasks, keys, sessions and routes, in bounded parts.

use std::collections::HashSet;

use rota_core::Timestamp;
use rota_core::target::{Route, Target};

use super::{Answer, Engine};
use crate::{Error, Prune, Refused, Reply, WriteTxn};

impl<T: WriteTxn> Engine<T> {
    pub(super) fn prune(&mut self, prune: Prune, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        let mut count = self.txn.delete_sessions(prune.left_before, prune.limit)?;
        if let Some(before) = prune.ended_before {
            count += self.txn.delete_keys(before, prune.limit)?;
            count += self.prune_tasks(before, prune.limit, now)?;
        }
        count += self.prune_routes(prune.limit)?;
        Ok(Ok(Reply::Pruned(count).into()))
    }

    fn prune_tasks(&mut self, before: Timestamp, limit: usize, now: Timestamp) -> Result<usize, Error> {
        let mut count = 0;
        for id in self.txn.ended_before(before, limit)? {
            if self.write_set.holds(id) {
                continue;
            }
            if let Some(task) = self.txn.task(id)?.filter(|task| task.state.is_final()) {
                self.txn.delete_task(&task, now)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Removes unused routes. Only ready tasks are found by their route; any other task finds it, or creates it again,
    /// when it becomes ready.
    fn prune_routes(&mut self, limit: usize) -> Result<usize, Error> {
        let touched: HashSet<_> = self.write_set.entries().map(|entry| entry.route).collect();
        let idle = |(route, id): &(&Route, _)| !touched.contains(id) && !self.stands_behind(route);
        let idle = self.routes.iter().map(|(route, id)| (route, *id)).filter(idle);
        let mut idle: Vec<_> = idle.map(|(route, id)| (id, route.clone())).collect();
        idle.sort_unstable_by_key(|(id, _)| *id);
        let mut count = 0;
        for (id, route) in idle {
            if count >= limit {
                break;
            }
            // The worker of an isolated task is matched by its route until the task ends.
            if let Target::Task { id: task, .. } = &route.target
                && self.txn.task(*task)?.is_some_and(|task| !task.state.is_final())
            {
                continue;
            }
            if self.txn.ready(id, 1)?.is_empty() {
                self.txn.delete_route(id)?;
                self.routes.remove(&route);
                self.write_set.removed_routes.push(id);
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether an agent or worker serves the route: removing it would only slow down the next task.
    fn stands_behind(&self, route: &Route) -> bool {
        match &route.target {
            Target::Agent(agent) => self.agents.contains_key(&(route.namespace.clone(), agent.clone())),
            Target::Worker(worker) => self.sessions.contains_key(&(route.namespace.clone(), worker.clone())),
            Target::Capabilities(_) | Target::Task { .. } => false,
        }
    }
}
