//! The ready tasks of one route as one batch sees them: those that the tables hold and that the batch has not
//! touched, and those that it has. A batch of many claims reads each row once, not once for each claim.

use std::collections::BTreeSet;

use rota_core::TaskId;
use rota_core::task::{State, Task};

/// A rank and the task that has it.
pub(super) type Place = (i64, TaskId);

/// Where a task stands, if it is ready.
pub(super) fn place(task: &Task) -> Option<Place> {
    (task.state == State::Queued).then(|| (task.rank(), task.id))
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// From the tables, which do not change until the batch is written: first come those with the lowest rank.
    stored: Vec<Place>,
    /// Before this, all have been touched.
    head: usize,
    /// Whether the tables hold no more.
    whole: bool,
    /// Touched and ready now.
    touched: BTreeSet<Place>,
}

impl Queue {
    /// A touched task has moved.
    pub(super) fn moved(&mut self, before: Option<Place>, after: Option<Place>) {
        if before != after {
            before.map(|before| self.touched.remove(&before));
            self.touched.extend(after);
        }
    }

    /// How many rows must be known to find so many; `None` when enough are.
    pub(super) fn wants(&mut self, slots: usize, is_touched: impl Fn(TaskId) -> bool) -> Option<usize> {
        while self.stored.get(self.head).is_some_and(|(_, id)| is_touched(*id)) {
            self.head += 1;
        }
        let untouched =
            self.stored[self.head..].iter().filter(|(_, id)| !is_touched(*id)).take(slots).count();
        let enough = self.whole || untouched >= slots;
        // At least twice as many as last time, so that few claims must ask again.
        (!enough).then(|| (2 * self.stored.len()).max(self.stored.len().saturating_add(slots)).max(32))
    }

    /// Takes in the first rows, as many as were wanted if there are so many.
    pub(super) fn learn(&mut self, rows: Vec<Place>, wanted: usize) {
        self.whole = rows.len() < wanted;
        self.stored = rows;
    }

    /// The best ones, in no order between the two kinds.
    pub(super) fn best(
        &self,
        slots: usize,
        is_touched: impl Fn(TaskId) -> bool,
    ) -> impl Iterator<Item = Place> {
        let stored = self.stored[self.head..].iter().filter(move |(_, id)| !is_touched(*id));
        stored.take(slots).chain(self.touched.iter().take(slots)).copied()
    }
}
