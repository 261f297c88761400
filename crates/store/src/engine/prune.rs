//! Pruning of expired tasks, keys, sessions and routes, in bounded parts.

use std::collections::HashSet;
use std::sync::Arc;

use rota_core::target::{Route, Target};
use rota_core::task::{DependencyKey, DependencyState, Task};
use rota_core::{RouteId, TaskId};

use super::queue::Queue;
use super::{Answer, Engine};
use crate::{Backend, Error, Keys, Prune, ReadyKey, Refused, Reply, WaitKey};

/// Unused routes that one prune looks at.
const MAX_ROUTES: usize = 1024;

/// Returns the objects that a task waited for when it ended.
fn waited_for(task: &Task) -> impl Iterator<Item = WaitKey> {
    let missing = task.dependencies.iter().filter(|dependency| dependency.state == DependencyState::Missing);
    let waits = missing.map(|dependency| match &dependency.key {
        DependencyKey::Id(id) => WaitKey::Id(*id),
        DependencyKey::Alias(alias) => WaitKey::Alias(alias.clone()),
    });
    waits.chain(task.agent().filter(|_| !task.agent_known).cloned().map(WaitKey::Agent))
}

impl<B: Backend> Engine<B> {
    pub(super) fn prune(&mut self, prune: Prune) -> Result<Result<Answer, Refused>, Error> {
        let expired = self.write_set.cache.expired.take().unwrap_or_default();
        let mut count = 0;
        for key in expired.sessions {
            if self.write_set.cache.sessions.remove(&key) {
                self.write_set.changes.removed_sessions.push(key);
                count += 1;
            }
        }
        for key in expired.keys {
            if self.write_set.cache.keys.remove(&key) {
                self.write_set.changes.removed_keys.push(key);
                count += 1;
            }
        }
        for (id, task) in expired.tasks {
            match task {
                Ok(task) if task.state.is_final() && !self.write_set.holds(id) => {
                    self.remove(Arc::new(task));
                    count += 1;
                }
                Ok(_) => {}
                Err(reason) => {
                    self.write_set.undecodable.insert(id, reason);
                }
            }
        }
        count += self.prune_routes(prune.limit)?;
        Ok(Ok(Reply::Pruned(count).into()))
    }

    fn remove(&mut self, task: Arc<Task>) {
        let changes = &mut self.write_set.changes;
        let waits = waited_for(&task).map(|key| ((task.namespace.clone(), key), task.id));
        changes.removed_waiters.extend(waits);
        self.write_set.cache.absent.insert(task.id);
        changes.removed.push(task);
    }

    /// Removes unused routes. Only ready tasks are found by their route; any other task finds it, or creates it again,
    /// when it becomes ready.
    fn prune_routes(&mut self, limit: usize) -> Result<usize, Error> {
        let idle = self.idle_routes();
        let isolated: HashSet<_> = idle.iter().filter_map(|(_, route)| isolated_task(route)).collect();
        let first = |route| ReadyKey { route, limit: 1, payloads: false };
        let ready = idle.iter().map(|(id, _)| first(*id)).collect();
        self.fetch(&Keys { ready, ..Keys::default() })?;
        self.fetch_unknown(Keys { tasks: isolated.into_iter().collect(), ..Keys::default() })?;
        let mut count = 0;
        for (id, route) in idle {
            if count >= limit {
                break;
            }
            // The worker of an isolated task is matched by its route until the task ends.
            if let Some(task) = isolated_task(&route)
                && self.load(task)?.is_some_and(|task| !task.state.is_final())
            {
                continue;
            }
            // Not known to be empty if its first row is damaged: then the next prune decides.
            if self.write_set.queues.get(&id).and_then(Queue::count) == Some(0) {
                self.write_set.routes.insert(route, None);
                self.write_set.removed_routes.push(id);
                count += 1;
            }
        }
        Ok(count)
    }

    /// Returns routes that neither the batch nor an agent or worker uses, lowest id first: some of them, and others the
    /// next time.
    fn idle_routes(&mut self) -> Vec<(RouteId, Route)> {
        let touched: HashSet<_> = self.write_set.entries().map(|entry| entry.route).collect();
        let is_idle = |(route, id): &(&Route, &RouteId)| {
            !touched.contains(*id)
                && !self.write_set.routes.contains_key(*route)
                && !self.stands_behind(route)
        };
        let idle = self.routes.iter().filter(is_idle).map(|(route, id)| (*id, route.clone()));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable_by_key(|(id, _)| *id);
        if idle.len() > MAX_ROUTES {
            let next = idle.partition_point(|(id, _)| *id <= self.last_idle_route);
            idle.rotate_left(next);
            idle.truncate(MAX_ROUTES);
        }
        self.last_idle_route = idle.last().map_or(RouteId(0), |(id, _)| *id);
        idle
    }

    /// Whether an agent or worker serves the route: removing it would only slow down the next task.
    fn stands_behind(&self, route: &Route) -> bool {
        match &route.target {
            Target::Agent(agent) => self.agent(&(route.namespace.clone(), agent.clone())).is_some(),
            Target::Worker(worker) => self.session(&(route.namespace.clone(), worker.clone())).is_some(),
            Target::Capabilities(_) | Target::Task { .. } => false,
        }
    }
}

fn isolated_task(route: &Route) -> Option<TaskId> {
    match route.target {
        Target::Task { id, .. } => Some(id),
        _ => None,
    }
}
