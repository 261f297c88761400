//! What the scheduler's lock protects: workers, queues, and the indexes between them. Every method keeps the queues'
//! lists of free workers in step with the workers' slots.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use rota_core::target::Route;
use rota_core::task::{self, WorkerRef};
use rota_core::{AgentName, RouteId};
use rota_store::TaskChange;
use tokio::sync::Notify;

use super::admission::Admission;
use super::queue::RouteQueue;
use super::worker::WorkerEntry;
use crate::keys::{AgentKey, WorkerKey};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) workers: HashMap<WorkerKey, WorkerEntry>,
    pub(super) queues: HashMap<RouteId, RouteQueue>,
    pub(super) ids: HashMap<Route, RouteId>,
    /// Admission of each agent for which it is not [`Admission::Open`].
    pub(super) admissions: HashMap<AgentKey, Admission>,
    /// Notified whenever a slot may have become available.
    pub(super) wake: Arc<Notify>,
    pub(super) mismatches: Counter,
    last_generation: u64,
}

impl State {
    pub(super) fn new(wake: Arc<Notify>, mismatches: Counter) -> Self {
        Self { wake, mismatches, ..Self::default() }
    }

    /// Changes a worker, and moves it within the queues' lists of free workers.
    pub(super) fn with_entry<O>(
        &mut self,
        key: &WorkerKey,
        change: impl FnOnce(&mut WorkerEntry) -> O,
    ) -> Option<O> {
        let entry = self.workers.get_mut(key)?;
        let before = (entry.available() > 0, entry.slots.occupied());
        let out = change(entry);
        let after = (entry.available() > 0, entry.slots.occupied());
        if after.1 < before.1 {
            self.wake.notify_one();
        }
        if before != after {
            for route in &entry.routes {
                let Some(queue) = self.queues.get_mut(route) else { continue };
                if before.0 {
                    queue.free.remove(&(before.1, key.clone()));
                }
                if after.0 {
                    queue.free.insert((after.1, key.clone()));
                }
            }
        }
        Some(out)
    }

    /// Changes a worker if this is still its session.
    pub(super) fn with_session<O>(
        &mut self,
        key: &WorkerKey,
        session: &WorkerRef,
        change: impl FnOnce(&mut WorkerEntry) -> O,
    ) -> Option<O> {
        self.workers.get(key).filter(|entry| entry.epoch == session.epoch)?;
        self.with_entry(key, change)
    }

    pub(super) fn workers_of(&self, agent: &AgentKey) -> Vec<WorkerKey> {
        let theirs =
            self.workers.iter().filter(|(key, entry)| key.0 == agent.0 && entry.profile.agent == agent.1);
        theirs.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn add_worker(&mut self, mut entry: WorkerEntry) {
        let key = entry.key();
        let agent = (key.0.clone(), entry.profile.agent.clone());
        entry.admission = self.admissions.get(&agent).copied().unwrap_or_default();
        let covered = self.queues.iter().filter(|(_, queue)| entry.profile.covers(&queue.route));
        entry.routes = covered.map(|(id, _)| *id).collect();
        entry.routes.sort_unstable();
        if entry.available() > 0 {
            self.wake.notify_one();
            for route in &entry.routes {
                if let Some(queue) = self.queues.get_mut(route) {
                    queue.free.insert((entry.slots.occupied(), key.clone()));
                }
            }
        }
        self.workers.insert(key, entry);
    }

    pub(super) fn remove_worker(&mut self, key: &WorkerKey) -> Option<WorkerEntry> {
        let entry = self.workers.remove(key)?;
        for route in &entry.routes {
            if let Some(queue) = self.queues.get_mut(route) {
                queue.free.remove(&(entry.slots.occupied(), key.clone()));
            }
        }
        Some(entry)
    }

    pub(super) fn add_queue(&mut self, id: RouteId, route: Route) {
        if self.queues.get(&id).is_some_and(|queue| queue.route == route) {
            return;
        }
        // The store may reuse the id of a route that was removed.
        self.remove_queue(id);
        self.last_generation += 1;
        let mut queue = RouteQueue::new(route.clone(), self.last_generation);
        for (key, entry) in &mut self.workers {
            if entry.profile.covers(&route) {
                entry.routes.push(id);
                if entry.available() > 0 {
                    queue.free.insert((entry.slots.occupied(), key.clone()));
                }
            }
        }
        self.ids.insert(route, id);
        self.queues.insert(id, queue);
    }

    pub(super) fn remove_queue(&mut self, id: RouteId) {
        let Some(queue) = self.queues.remove(&id) else { return };
        // The same route may have been added again, under another id.
        if self.ids.get(&queue.route) == Some(&id) {
            self.ids.remove(&queue.route);
        }
        for entry in self.workers.values_mut() {
            entry.routes.retain(|route| *route != id);
        }
    }

    /// Counts a task that entered or left its queue.
    pub(super) fn apply_queue_change(&mut self, change: &TaskChange) {
        let before = change.before == Some(task::State::Queued);
        let after = change.task.state == task::State::Queued;
        if before != after
            && let Some(queue) = self.queues.get_mut(&change.route)
        {
            match (after, queue.queued.checked_sub(1)) {
                (true, _) => queue.queued += 1,
                (false, Some(queued)) => queue.queued = queued,
                (false, None) => self.report_mismatch("a task left a queue that was empty"),
            }
        }
        if change.task.state.is_final() && change.task.target.is_own() {
            self.remove_queue(change.route);
        }
    }

    /// Corrects the count of a queue in which a claim found nothing: a count that is too high would be claimed without end.
    pub(super) fn correct_queue(&mut self, id: RouteId, count: u64) {
        if let Some(queue) = self.queues.get_mut(&id).filter(|queue| queue.queued != count) {
            tracing::warn!(
                route = id.0,
                counted = queue.queued,
                ready = count,
                "corrected the count of a queue"
            );
            queue.queued = count;
        }
    }

    /// Returns whether any route of a worker has tasks that no pending claim may take.
    pub(super) fn has_backlog(&self, entry: &WorkerEntry) -> bool {
        entry.routes.iter().any(|route| self.queues.get(route).is_some_and(|queue| queue.backlog() > 0))
    }

    pub(super) fn set_admission(&mut self, agent: &AgentKey, admission: Admission) {
        match admission {
            Admission::Open => drop(self.admissions.remove(agent)),
            _ => drop(self.admissions.insert(agent.clone(), admission)),
        }
        for key in self.workers_of(agent) {
            self.with_entry(&key, |entry| entry.admission = admission);
        }
        self.wake.notify_one();
    }

    /// Takes the probe of a worker's agent, if it is due. Returns the agent that the probe is for.
    pub(super) fn take_probe(&mut self, key: &WorkerKey) -> Option<AgentName> {
        let entry = self.workers.get(key).filter(|entry| entry.admission == Admission::Probe)?;
        let agent = entry.profile.agent.clone();
        self.set_admission(&(key.0.clone(), agent.clone()), Admission::ProbeInFlight);
        Some(agent)
    }

    /// Gives back a probe that no task came of, so that the next task may be it.
    pub(super) fn return_probe(&mut self, agent: &AgentKey) {
        if self.admissions.get(agent) == Some(&Admission::ProbeInFlight) {
            self.set_admission(agent, Admission::Probe);
        }
    }

    /// Reports an inconsistency in the scheduler's counts. The counts stay within their bounds.
    pub(super) fn report_mismatch(&self, what: &'static str) {
        self.mismatches.inc();
        tracing::error!(what, "scheduler slot mismatch");
        debug_assert!(false, "scheduler slot mismatch: {what}");
    }
}
