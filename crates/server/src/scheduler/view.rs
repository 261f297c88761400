//! Read-only copies of the scheduler's state, for the API, scaling and metrics. A view of all workers costs work for
//! each worker and queue under the scheduler's lock: [`Demand::snapshot`](crate::demand::Demand::snapshot) shares them.

use std::sync::Arc;

use rota_core::target::{Profile, Route, Target};
use rota_core::{Epoch, RouteId, TaskId};

use super::admission::Admission;
use super::state::State;
use super::{Scheduler, WorkerEntry, WorkerStats};
use crate::keys::{AgentKey, WorkerKey};

/// Snapshot of a worker, for display and scaling.
#[derive(Debug, Clone)]
pub(crate) struct WorkerView {
    pub(crate) profile: Profile,
    pub(crate) stats: WorkerStats,
    pub(crate) epoch: Epoch,
    pub(crate) instance: String,
    pub(crate) slots: usize,
    pub(crate) free: usize,
    pub(crate) tasks: Vec<TaskId>,
    /// How many of these hold no slot: they only wait until a storage takes their files.
    pub(crate) storing: usize,
    /// Task that it was started for, as long as that has a queue.
    pub(crate) own_task: Option<TaskId>,
    /// Whether it proves itself by the token of a pod, which the operator has created.
    pub(crate) is_pod: bool,
    pub(crate) connected: bool,
    pub(crate) draining: bool,
    /// Whether the worker's circuit breaker is not closed.
    pub(crate) suspended: bool,
    /// Whether nothing keeps the worker from running attempts, by its own statement.
    pub(crate) ready: bool,
}

impl WorkerView {
    /// Whether it gets no tasks. Its slots are no capacity.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.suspended || !self.ready
    }

    /// Returns why it gets no tasks; empty if it gets some.
    pub(crate) fn unavailable_reason(&self) -> &str {
        match (self.ready, self.suspended) {
            (false, _) => &self.stats.not_ready_reason,
            (true, true) => "its circuit breaker is open after consecutive failures of the worker itself",
            (true, false) => "",
        }
    }
}

/// Snapshot of all workers and queues.
#[derive(Debug, Default)]
pub(crate) struct SchedulerView {
    /// Number of changes that it contains.
    pub(crate) version: u64,
    /// Number of those that were not of statistics alone.
    pub(crate) changes: u64,
    /// Sorted by namespace and name.
    pub(crate) workers: Vec<Arc<WorkerView>>,
    /// Routes with waiting tasks, and how many tasks wait on each.
    pub(crate) queues: Vec<(RouteId, Route, u64)>,
    /// Workers that are not there, and have what attempts left.
    pub(crate) awaited: Vec<(AgentKey, WorkerKey)>,
}

impl Scheduler {
    /// Returns how many changes there were so far.
    pub(crate) fn version(&self) -> u64 {
        self.state().version
    }

    /// Returns how many changes there were so far that were not of statistics alone.
    pub(crate) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Notes a change of the pools that waiting tasks count for, or of why a worker takes none.
    pub(crate) fn demand_changed(&self) {
        self.state().mark_changed();
    }

    /// Copies the state of all workers and queues.
    pub(crate) fn view(&self) -> SchedulerView {
        let mut state = self.state();
        state.views += 1;
        let mut workers: Vec<_> = state.workers.values().map(|entry| Arc::new(state.view(entry))).collect();
        let waiting = state.matching.queues().filter(|(_, queue)| queue.queued > 0);
        let queues = waiting.map(|(id, queue)| (id, queue.route.clone(), queue.queued)).collect();
        let (version, changes) = (state.version, state.changes);
        let awaited = state.awaited.workers().collect();
        drop(state);
        let name = |worker: &WorkerView| (worker.profile.namespace.clone(), worker.profile.worker.clone());
        workers.sort_by_cached_key(|worker| name(worker));
        SchedulerView { version, changes, workers, queues, awaited }
    }

    /// Returns the id of a route that has a queue.
    pub(crate) fn route_id(&self, route: &Route) -> Option<RouteId> {
        self.state().matching.id(route)
    }

    /// Returns how often all workers were copied.
    #[cfg(test)]
    pub(crate) fn views(&self) -> u64 {
        self.state().views
    }
}

impl State {
    fn view(&self, entry: &WorkerEntry) -> WorkerView {
        let (namespace, agent) = entry.agent();
        let own_route = |id| Route { namespace, target: Target::Task { id, agent } };
        WorkerView {
            own_task: entry.profile.task.filter(|id| self.matching.id(&own_route(*id)).is_some()),
            profile: self.profile(entry),
            stats: entry.stats.clone(),
            epoch: entry.epoch,
            instance: entry.instance.clone(),
            slots: entry.slot_count,
            free: if entry.is_ready() { entry.quota_limit(entry.admission.limit(entry.free())) } else { 0 },
            // A task whose superseded attempt has not ended yet is listed twice: both occupy a slot.
            tasks: entry.slots.iter_attempts().map(|(id, ..)| id).collect(),
            storing: entry.slots.storing().count(),
            is_pod: entry.pod.is_some(),
            connected: entry.session.is_some(),
            draining: entry.draining,
            ready: entry.is_ready(),
            suspended: entry.admission != Admission::Open,
        }
    }
}
