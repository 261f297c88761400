//! Ready tasks of one route in the view of one batch. A batch of many claims reads each row once, not once per claim.

use std::collections::BTreeSet;

use rota_core::task::{State, Task};

use crate::Place;

/// Returns the place of a task in its route, if it is ready.
pub(super) fn place(task: &Task) -> Option<Place> {
    (task.state == State::Queued).then(|| (task.rank(), task.key))
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Ready tasks that the batch has loaded or changed.
    known: BTreeSet<Place>,
    /// Rows that the last load asked for.
    loaded: usize,
    /// The last row of it: a task behind it may not be the next one.
    horizon: Option<Place>,
    /// Whether the database has no more rows.
    whole: bool,
}

impl Queue {
    /// Updates the place of a task in the batch.
    pub(super) fn moved(&mut self, before: Option<Place>, after: Option<Place>) {
        if before != after {
            before.map(|before| self.known.remove(&before));
            self.known.extend(after);
        }
    }

    /// Takes in the result of a load of the first `wanted` rows.
    pub(super) fn learn(&mut self, wanted: usize, last: Option<Place>, whole: bool) {
        if wanted > self.loaded {
            (self.loaded, self.horizon, self.whole) = (wanted, last, whole);
        }
    }

    /// Returns how many rows to load to find `slots` tasks; `None` if enough are known.
    pub(super) fn wanted(&self, slots: usize) -> Option<usize> {
        let enough = self.whole || self.reachable().take(slots).count() >= slots;
        // At least twice as many as last time, so that few claims load again.
        (!enough).then(|| self.loaded.saturating_add(self.loaded.max(slots)))
    }

    /// Returns the first `slots` places.
    pub(super) fn best(&self, slots: usize) -> impl Iterator<Item = Place> {
        self.reachable().take(slots)
    }

    /// Returns the number of ready tasks, if all are known.
    pub(super) fn count(&self) -> Option<u64> {
        self.whole.then_some(self.known.len() as u64)
    }

    /// Returns the known places that precede every unknown one.
    fn reachable(&self) -> impl Iterator<Item = Place> {
        self.known
            .iter()
            .copied()
            .take_while(|place| self.whole || self.horizon.is_some_and(|last| *place <= last))
    }
}
