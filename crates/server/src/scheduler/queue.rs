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
    /// Rank of the first of these, or a lower one: what precedes a task that was assigned has been assigned, too, but for tasks
    /// that were passed over.
    pub(super) head: i64,
    /// How many of these the pending claims may take.
    pub(super) planned: u64,
    /// Distinguishes this queue from an earlier one whose route id was reused.
    pub(super) generation: u64,
    /// Groups of workers that cover the route.
    pub(super) groups: BTreeSet<GroupId>,
}

impl RouteQueue {
    pub(super) fn new(route: Route, generation: u64) -> Self {
        Self { route, queued: 0, head: i64::MIN, planned: 0, generation, groups: BTreeSet::new() }
    }

    /// Counts a task that enters.
    pub(super) fn enter(&mut self, rank: i64) {
        self.head = if self.queued == 0 { rank } else { self.head.min(rank) };
        self.queued = self.queued.saturating_add(1);
    }

    /// Counts a task that leaves. Returns whether there was any.
    pub(super) fn leave(&mut self, rank: Option<i64>) -> bool {
        self.head = self.head.max(rank.unwrap_or(i64::MIN));
        let left = self.queued.checked_sub(1);
        self.queued = left.unwrap_or(0);
        left.is_some()
    }

    /// Returns the number of ready tasks that no pending claim may take.
    pub(super) fn backlog(&self) -> u64 {
        // Pending claims may have planned for tasks that left the queue meanwhile, for example by being cancelled.
        self.queued.saturating_sub(self.planned)
    }
}
