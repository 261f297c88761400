//! The queue of one route, as far as matching needs it: counts and candidates. The tasks themselves stay in the store.

use std::collections::BTreeSet;

use rota_core::target::Route;

use super::group::GroupId;

/// Waiting tasks of a route, and the workers that could take them.
#[derive(Debug)]
pub(super) struct RouteQueue {
    pub(super) route: Route,
    /// Ready tasks, according to the commits applied so far.
    pub(super) queued: u64,
    /// How many of these the pending claims may take.
    pub(super) planned: u64,
    /// Distinguishes this queue from an earlier one whose route id was reused.
    pub(super) generation: u64,
    /// Groups of workers that cover the route.
    pub(super) groups: BTreeSet<GroupId>,
}

impl RouteQueue {
    pub(super) fn new(route: Route, generation: u64) -> Self {
        Self { route, queued: 0, planned: 0, generation, groups: BTreeSet::new() }
    }

    /// Returns the number of ready tasks that no pending claim may take.
    pub(super) fn backlog(&self) -> u64 {
        // Pending claims may have planned for tasks that left the queue meanwhile, for example by being cancelled.
        self.queued.saturating_sub(self.planned)
    }
}
