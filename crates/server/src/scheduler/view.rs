//! Read-only views of the scheduler's state, for the API, scaling and metrics.

use std::collections::BTreeMap;

use rota_core::target::{Profile, Route, Target};
use rota_core::task::explain;
use rota_core::{AgentName, Namespace, RouteId, TaskId, WorkerName};

use super::{Scheduler, WorkerEntry, WorkerStats};
use crate::keys::AgentKey;

/// Snapshot of a worker, for display and scaling.
#[derive(Debug, Clone)]
pub(crate) struct WorkerView {
    pub(crate) profile: Profile,
    pub(crate) stats: WorkerStats,
    pub(crate) epoch: u64,
    pub(crate) instance: String,
    pub(crate) slots: usize,
    pub(crate) free: usize,
    pub(crate) tasks: Vec<String>,
    pub(crate) connected: bool,
    pub(crate) draining: bool,
}

/// An agent's pool: its workers and the tasks that wait for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolStatus {
    pub(crate) queued: u64,
    pub(crate) workers: Vec<WorkerView>,
}

/// A task that needs a worker of its own, and waits for it or has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IsolatedTask {
    pub(crate) namespace: Namespace,
    pub(crate) id: TaskId,
    pub(crate) agent: AgentName,
    pub(crate) queued: bool,
    pub(crate) worker: Option<WorkerName>,
}

impl Scheduler {
    /// Returns all workers, sorted by name.
    pub(crate) fn workers(&self) -> Vec<WorkerView> {
        let mut workers: Vec<_> = self.state().workers.values().map(view).collect();
        workers.sort_unstable_by(|a, b| {
            (&a.profile.namespace, &a.profile.worker).cmp(&(&b.profile.namespace, &b.profile.worker))
        });
        workers
    }

    /// Returns the routes with waiting tasks, and how many tasks wait on each.
    pub(crate) fn queues(&self) -> Vec<(RouteId, Route, u64)> {
        let state = self.state();
        let waiting = state.queues.iter().filter(|(_, queue)| queue.queued > 0);
        waiting.map(|(id, queue)| (*id, queue.route.clone(), queue.queued)).collect()
    }

    /// Counts the workers that cover a route. The caller fills in `ahead`.
    pub(crate) fn capacity(&self, route: &Route) -> (Option<RouteId>, explain::RouteCapacity) {
        let state = self.state();
        let mut capacity = explain::RouteCapacity::default();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        for entry in state.workers.values().filter(|entry| serves(entry, route)) {
            if entry.draining {
                capacity.draining += 1;
            } else {
                capacity.workers += 1;
                capacity.slots += small(entry.slot_count);
                capacity.free += small(entry.free());
            }
        }
        (state.ids.get(route).copied(), capacity)
    }

    /// Returns up to `limit` of the tasks on the workers that cover a route, oldest first, and how many there are.
    pub(crate) fn running_tasks(&self, route: &Route, limit: usize) -> (Vec<TaskId>, usize) {
        let state = self.state();
        let workers = state.workers.values().filter(|entry| serves(entry, route));
        let mut tasks: Vec<_> =
            workers.flat_map(|entry| entry.slots.iter_attempts().map(|(id, ..)| id)).collect();
        // Ids grow with time.
        tasks.sort_unstable();
        tasks.dedup();
        let count = tasks.len();
        tasks.truncate(limit);
        (tasks, count)
    }

    /// Returns the tasks that need a worker of their own, sorted by id.
    pub(crate) fn isolated_tasks(&self) -> Vec<IsolatedTask> {
        let state = self.state();
        let own = |entry: &WorkerEntry| Some((entry.profile.task?, entry.profile.worker.clone()));
        let workers: BTreeMap<TaskId, WorkerName> = state.workers.values().filter_map(own).collect();
        let mut isolated: Vec<_> = (state.queues.values())
            .filter_map(|queue| {
                let Target::Task { id, agent } = &queue.route.target else { return None };
                let (queued, worker) = (queue.queued > 0, workers.get(id).cloned());
                let namespace = queue.route.namespace.clone();
                let task = IsolatedTask { namespace, id: *id, agent: agent.clone(), queued, worker };
                (queued || task.worker.is_some()).then_some(task)
            })
            .collect();
        isolated.sort_unstable();
        isolated
    }

    /// Returns the workers of each agent's pool. Workers that were started for a single task belong to no pool.
    pub(crate) fn pools(&self) -> BTreeMap<AgentKey, PoolStatus> {
        let mut pools: BTreeMap<_, PoolStatus> = BTreeMap::new();
        for worker in self.workers().into_iter().filter(|worker| worker.profile.task.is_none()) {
            let key = (worker.profile.namespace.clone(), worker.profile.agent.clone());
            pools.entry(key).or_default().workers.push(worker);
        }
        pools
    }
}

fn serves(entry: &WorkerEntry, route: &Route) -> bool {
    entry.session.is_some() && entry.profile.covers(route)
}

fn view(entry: &WorkerEntry) -> WorkerView {
    WorkerView {
        profile: entry.profile.clone(),
        stats: entry.stats.clone(),
        epoch: entry.epoch.0,
        instance: entry.instance.clone(),
        slots: entry.slot_count,
        free: entry.free(),
        // A task whose superseded attempt has not ended yet is listed twice: both occupy a slot.
        tasks: entry.slots.iter_attempts().map(|(id, ..)| id.to_string()).collect(),
        connected: entry.session.is_some(),
        draining: entry.draining,
    }
}
