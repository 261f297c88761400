//! A naive scheduler: nothing is indexed or cached, everything is recounted when asked for.

use std::collections::BTreeMap;

use rota_core::{Fence, RouteId, TaskId};

use crate::scheduler::{Admission, SlotState};

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) workers: BTreeMap<usize, Worker>,
    /// The id of each route that exists, by the commits applied so far.
    pub(super) ids: Vec<Option<RouteId>>,
    /// How often each route was added.
    pub(super) generations: Vec<u64>,
    /// Tasks that wait on each route, by the commits applied so far.
    pub(super) queued: Vec<u64>,
    /// Tasks that pending claims may take, by the route that they were planned for.
    pub(super) planned: Vec<u64>,
    pub(super) admission: Vec<Admission>,
    /// Whether each agent has the capability that the last route requires.
    pub(super) capable: Vec<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) epoch: u64,
    pub(super) slots: usize,
    pub(super) connected: bool,
    pub(super) draining: bool,
    /// Slots held for creations and claims under way.
    pub(super) reserved: usize,
    pub(super) attempts: BTreeMap<(TaskId, Fence), SlotState>,
}

impl Worker {
    pub(super) fn occupied(&self) -> usize {
        self.reserved + self.attempts.len()
    }

    pub(super) fn free(&self) -> usize {
        let open = self.connected && !self.draining;
        (if open { self.slots } else { 0 }).saturating_sub(self.occupied())
    }
}

/// Returns the agent of a worker.
pub(super) fn agent(worker: usize) -> usize {
    worker % super::world::AGENTS
}

/// Returns whether a worker has the capability that the last route requires, besides those of its agent.
pub(super) fn is_capable(worker: usize) -> bool {
    worker == super::world::WORKERS - 1
}

impl Model {
    /// Returns whether a worker may take tasks from a route: one for each agent, one for worker 0, one for all workers,
    /// one for those with a capability.
    pub(super) fn covers(&self, worker: usize, route: usize) -> bool {
        match route {
            0 | 1 => agent(worker) == route,
            2 => worker == 0,
            3 => true,
            _ => is_capable(worker) || self.capable[agent(worker)],
        }
    }

    /// Returns the route that has an id.
    pub(super) fn route(&self, id: RouteId) -> Option<usize> {
        self.ids.iter().position(|known| *known == Some(id))
    }

    /// Adds a route, which starts with an empty queue.
    pub(super) fn add_route(&mut self, route: usize, id: RouteId) {
        self.ids[route] = Some(id);
        self.generations[route] += 1;
        self.planned[route] = 0;
    }

    /// Removes the route of an id, unless it was added again under another one.
    pub(super) fn remove_route(&mut self, id: RouteId) {
        let Some(route) = self.route(id) else { return };
        self.ids[route] = None;
        self.planned[route] = 0;
    }

    pub(super) fn available(&self, worker: usize) -> usize {
        let free = self.workers.get(&worker).map_or(0, Worker::free);
        match self.admission[agent(worker)] {
            Admission::Open => free,
            Admission::Probe => free.min(1),
            Admission::ProbeInFlight | Admission::Closed => 0,
        }
    }

    pub(super) fn backlog(&self, route: usize) -> u64 {
        self.queued[route].saturating_sub(self.planned[route])
    }

    /// Returns the workers that could take a task from a route now, with what occupies them.
    pub(super) fn candidates(&self, route: usize) -> BTreeMap<usize, usize> {
        let could = self.workers.iter().filter(|(worker, _)| self.covers(**worker, route));
        could
            .filter(|(worker, _)| self.available(**worker) > 0)
            .map(|(worker, entry)| (*worker, entry.occupied()))
            .collect()
    }

    /// Takes a probe if it is due. Returns whether it was.
    pub(super) fn take_probe(&mut self, worker: usize) -> bool {
        let admission = &mut self.admission[agent(worker)];
        let due = *admission == Admission::Probe;
        if due {
            *admission = Admission::ProbeInFlight;
        }
        due
    }

    pub(super) fn return_probe(&mut self, worker: usize) {
        let admission = &mut self.admission[agent(worker)];
        if *admission == Admission::ProbeInFlight {
            *admission = Admission::Probe;
        }
    }
}
