//! A naive scheduler: nothing is indexed or cached, everything is recounted when asked for.

use std::collections::BTreeMap;

use rota_core::{Fence, TaskId};

use crate::scheduler::{Admission, SlotState};

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) workers: BTreeMap<usize, Worker>,
    /// Tasks that wait on each route, by the commits applied so far.
    pub(super) queued: Vec<u64>,
    /// Tasks that pending claims may take, by the route that they were planned for.
    pub(super) planned: Vec<u64>,
    pub(super) admission: Vec<Admission>,
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

/// Returns whether a worker may take tasks from a route: one for each agent, one for worker 0, one for all workers.
pub(super) fn covers(worker: usize, route: usize) -> bool {
    match route {
        0 | 1 => agent(worker) == route,
        2 => worker == 0,
        _ => true,
    }
}

impl Model {
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
        let could = self.workers.iter().filter(|(worker, _)| covers(**worker, route));
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
