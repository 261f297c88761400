//! What a snapshot of the demand shows of a namespace or a route. Knows nothing of how it was taken.

use std::sync::Arc;

use rota_core::target::{Route, Target};
use rota_core::task::explain;
use rota_core::{Namespace, TaskId, WorkerName};

use super::Snapshot;
use crate::keys::AgentKey;
use crate::scheduler::WorkerView;

impl Snapshot {
    /// Returns the workers of a namespace, or all.
    pub(crate) fn workers(&self, namespace: Option<&Namespace>) -> impl Iterator<Item = &Arc<WorkerView>> {
        let is_in =
            move |worker: &&Arc<WorkerView>| namespace.is_none_or(|at| worker.profile.namespace == *at);
        self.view.workers.iter().filter(is_in)
    }

    /// Counts the workers that cover a route. The caller fills in `ahead`.
    pub(crate) fn capacity(&self, route: &Route) -> explain::RouteCapacity {
        let mut capacity = explain::RouteCapacity::default();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        for worker in self.serving(route) {
            if worker.draining {
                capacity.draining += 1;
            } else {
                capacity.workers += 1;
                capacity.unavailable += u32::from(worker.is_unavailable());
                capacity.slots += if worker.is_unavailable() { 0 } else { small(worker.slots) };
                capacity.free += small(worker.free);
                capacity.suspended += u32::from(worker.suspended);
                capacity.not_ready += u32::from(!worker.ready);
            }
        }
        capacity
    }

    /// Returns the agents with waiting tasks whose connected workers all get none, and why one of them does not.
    pub(crate) fn unavailable_pools(&self) -> impl Iterator<Item = (&AgentKey, &WorkerView)> {
        self.pools.iter().filter(|(_, pool)| pool.queued > 0).filter_map(|(agent, pool)| {
            let serving = || pool.workers.iter().filter(|worker| worker.connected && !worker.draining);
            let first = serving().min_by_key(|worker| worker.ready)?;
            serving().all(|worker| worker.is_unavailable()).then_some((agent, first.as_ref()))
        })
    }

    /// Returns a worker that covers a route but takes nothing, and why.
    pub(crate) fn not_ready(&self, route: &Route) -> Option<(WorkerName, String)> {
        let worker = self.serving(route).find(|worker| !worker.ready && !worker.draining)?;
        Some((worker.profile.worker.clone(), worker.stats.not_ready_reason.clone()))
    }

    /// Returns up to `limit` of the tasks on the workers that cover a route, oldest first, and how many there are.
    pub(crate) fn running_tasks(&self, route: &Route, limit: usize) -> (Vec<TaskId>, usize) {
        let mut tasks: Vec<_> = self.serving(route).flat_map(|worker| worker.tasks.iter().copied()).collect();
        // Ids grow with time.
        tasks.sort_unstable();
        tasks.dedup();
        let count = tasks.len();
        tasks.truncate(limit);
        (tasks, count)
    }

    /// Whether a worker that covers a route has no session, and may be back.
    pub(crate) fn has_lost_worker(&self, route: &Route) -> bool {
        self.covering(route).any(|worker| !worker.connected)
    }

    fn serving(&self, route: &Route) -> impl Iterator<Item = &Arc<WorkerView>> {
        self.covering(route).filter(|worker| worker.connected)
    }

    fn covering(&self, route: &Route) -> impl Iterator<Item = &Arc<WorkerView>> {
        // The workers of an agent, and those of a single task, need not be searched for.
        let pool = match &route.target {
            Target::Agent(agent) => {
                let pool = self.pools.get(&(route.namespace.clone(), agent.clone()));
                pool.map_or(&[][..], |pool| &pool.workers)
            }
            Target::Task { id, .. } => {
                let own = self.own.get(&(route.namespace.clone(), *id));
                own.map_or(&[][..], Vec::as_slice)
            }
            _ => &self.view.workers,
        };
        pool.iter().filter(move |worker| worker.profile.covers(route))
    }
}
