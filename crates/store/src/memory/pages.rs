//! Pages of rows of the in-memory store.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Contents, InMemoryStore};
use crate::{DependentsPage, ReadyPage, ReadyRow, SealedSecrets, TaskRow, WaitsPage, stored_due};
use rota_core::task::{State, Task};
use rota_core::{RouteId, TaskKey, Timestamp};

impl Contents {
    pub(super) fn dependents(&self, page: &DependentsPage) -> Vec<TaskRow> {
        let after = (page.task, TaskKey(page.after.0 + 1));
        let edges =
            self.edges.range(after..).take_while(|(task, on)| *task == page.task && *on <= page.until);
        self.rows(edges.map(|(_, dependent)| *dependent)).into_iter().take(page.limit).collect()
    }

    pub(super) fn waiters(&self, page: &WaitsPage) -> Vec<TaskKey> {
        let range = (page.key.clone(), TaskKey(0))..=(page.key.clone(), TaskKey(u64::MAX));
        self.waits.range(range).map(|(_, waiter)| *waiter).take(page.limit).collect()
    }

    pub(super) fn ready_on(&self, route: RouteId) -> Vec<(i64, TaskKey)> {
        let ready = self.tasks.values().filter(|(task, at)| *at == route && task.state == State::Queued);
        let mut places: Vec<_> = ready.map(|(task, _)| (task.rank(), task.key)).collect();
        places.sort_unstable();
        places
    }

    pub(super) fn ready(&self, page: &ReadyPage, left: &mut u64) -> Vec<ReadyRow> {
        let places = self.ready_on(page.route).into_iter();
        let rows = places.filter(|place| page.after.is_none_or(|after| *place > after)).take(page.limit);
        let row = |(rank, key)| {
            let payload = self.payloads.get(&key).filter(|_| page.payloads && *left > 0).cloned();
            *left = left.saturating_sub(payload.as_ref().map_or(0, Bytes::len) as u64);
            Some(ReadyRow { rank, row: self.row(key)?, payload })
        };
        rows.filter_map(row).collect()
    }

    pub(super) fn sealed(&self, after: TaskKey, limit: usize) -> Vec<SealedSecrets> {
        let later = self.tasks.range((Bound::Excluded(after), Bound::Unbounded));
        let sealed = |(key, (task, _)): (&TaskKey, &(Task, RouteId))| {
            let id = (task.namespace.clone(), task.id);
            Some(SealedSecrets { key: *key, id, sealed: self.secrets.get(key)?.clone() })
        };
        later.filter_map(sealed).take(limit).collect()
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<TaskKey> {
        let due = self.tasks.values().filter_map(|(task, _)| Some((stored_due(task)?, task.key)));
        let mut due: Vec<_> = due.filter(|(at, _)| *at <= now).collect();
        due.sort_unstable();
        due.into_iter().take(limit).map(|(_, key)| key).collect()
    }
}

impl InMemoryStore {
    /// Returns how often payloads or results were read.
    pub fn body_reads(&self) -> u64 {
        self.body_reads.load(Ordering::Relaxed)
    }
}

/// Returns the bodies with these keys, in order, up to a number of bytes.
pub(super) fn bodies(
    all: &HashMap<TaskKey, Bytes>,
    keys: &[TaskKey],
    left: &mut u64,
) -> Vec<(TaskKey, Bytes)> {
    let mut found = Vec::new();
    for key in keys {
        let body = all.get(key).filter(|_| *left > 0);
        *left = left.saturating_sub(body.map_or(0, Bytes::len) as u64);
        found.extend(body.map(|body| (*key, body.clone())));
    }
    found
}
