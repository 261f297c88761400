//! Ready tasks of one route in the view of one batch: stored ones that the batch has not touched, and touched ones. A
//! batch of many claims reads each row once, not once per claim.

use std::collections::BTreeSet;

use rota_core::TaskId;
use rota_core::task::{State, Task};

/// Sort key of a ready task: its rank, then its id.
pub(super) type RankKey = (i64, TaskId);

/// Returns the sort key of a task, if it is ready.
pub(super) fn rank_key(task: &Task) -> Option<RankKey> {
    (task.state == State::Queued).then(|| (task.rank(), task.id))
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Rows of the database, lowest rank first; unchanged until the batch is written.
    stored: Vec<RankKey>,
    /// Index of the first untouched row.
    head: usize,
    /// Whether the database has no more rows.
    whole: bool,
    /// Ready tasks that the batch has touched.
    touched: BTreeSet<RankKey>,
}

impl Queue {
    /// Updates the key of a touched task.
    pub(super) fn moved(&mut self, before: Option<RankKey>, after: Option<RankKey>) {
        if before != after {
            before.map(|before| self.touched.remove(&before));
            self.touched.extend(after);
        }
    }

    /// Returns how many rows are needed to find `slots` tasks; `None` if enough are known.
    pub(super) fn wanted(&mut self, slots: usize, is_touched: impl Fn(TaskId) -> bool) -> Option<usize> {
        while self.stored.get(self.head).is_some_and(|(_, id)| is_touched(*id)) {
            self.head += 1;
        }
        let untouched =
            self.stored[self.head..].iter().filter(|(_, id)| !is_touched(*id)).take(slots).count();
        let enough = self.whole || untouched >= slots;
        // At least twice as many as last time, so that few claims query again.
        (!enough).then(|| (2 * self.stored.len()).max(self.stored.len().saturating_add(slots)).max(32))
    }

    /// Replaces the rows with the result of a query for `wanted` of them.
    pub(super) fn set_rows(&mut self, rows: Vec<RankKey>, wanted: usize) {
        self.whole = rows.len() < wanted;
        self.stored = rows;
    }

    /// Returns the best keys of both kinds, unsorted between them.
    pub(super) fn best(
        &self,
        slots: usize,
        is_touched: impl Fn(TaskId) -> bool,
    ) -> impl Iterator<Item = RankKey> {
        let stored = self.stored[self.head..].iter().filter(move |(_, id)| !is_touched(*id));
        stored.take(slots).chain(self.touched.iter().take(slots)).copied()
    }
}
