//! Lower bounds of what the writer searches for. Under a long snapshot, such as that of a backup, entries of claimed tasks stay
//! in the indexes: a search for the first ready task would pass all of them. The only writer knows where the first can be.

use std::collections::HashMap;

use rota_core::task::{State, Task};
use rota_core::{RouteId, TaskKey, Timestamp};
use rota_store::{Changes, Place, ReadyPage, ReadyRow, stored_due};

const END: Place = (i64::MAX, TaskKey(u64::MAX));

#[derive(Debug)]
pub(crate) struct Floors {
    /// No ready task of the route has an earlier place.
    ready: HashMap<RouteId, Place>,
    /// No task is due earlier.
    due: i64,
}

impl Default for Floors {
    fn default() -> Self {
        Self { ready: HashMap::new(), due: i64::MIN }
    }
}

impl Floors {
    /// Lowers the bounds for what a write adds, whether it succeeds or not.
    pub(crate) fn lower(&mut self, changes: &Changes) {
        let inserted = changes.inserted.iter().map(|(task, route, _)| (task, route));
        for (task, route) in inserted.chain(changes.updated.iter().map(|(task, route)| (task, route))) {
            self.lower_for(task, *route);
        }
        for route in &changes.removed_routes {
            self.ready.remove(route);
        }
    }

    fn lower_for(&mut self, task: &Task, route: RouteId) {
        if task.state == State::Queued
            && let Some(floor) = self.ready.get_mut(&route)
        {
            *floor = (*floor).min((task.rank(), task.key));
        }
        if let Some(Timestamp(due)) = stored_due(task) {
            self.due = self.due.min(due);
        }
    }

    /// Returns the exclusive bound of a page; `None` if it is known to be empty.
    pub(crate) fn after(&self, page: &ReadyPage) -> Option<(i64, i64)> {
        let floor = self.ready.get(&page.route).copied();
        if floor == Some(END) {
            return None;
        }
        let signed = |key: u64| i64::try_from(key).unwrap_or(i64::MAX);
        let floor = floor.map(|(rank, key)| (rank, signed(key.0) - 1));
        let after = page.after.map(|(rank, key)| (rank, signed(key.0)));
        Some(floor.max(after).unwrap_or((i64::MIN, i64::MIN)))
    }

    /// Notes what the first page of a route has.
    pub(crate) fn read(&mut self, page: &ReadyPage, rows: &[ReadyRow]) {
        if page.after.is_none() && page.limit > 0 {
            let first = rows.first().map_or(END, |row| (row.rank, row.row.key));
            self.ready.insert(page.route, first);
        }
    }

    pub(crate) fn due(&self) -> i64 {
        self.due
    }

    /// Notes the first due time after a write.
    pub(crate) fn next_due(&mut self, due: Option<i64>) {
        self.due = due.unwrap_or(i64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use rota_core::target::Target;
    use rota_core::{Namespace, TaskId};

    use super::*;

    fn queued(key: u64, rank: i64) -> Arc<Task> {
        let target = Target::Capabilities(["code".to_owned()].into());
        let task =
            Task::new(TaskId(uuid::Uuid::from_u128(u128::from(key))), Namespace::new("n").unwrap(), target);
        Arc::new(Task { key: TaskKey(key), state: State::Queued, ready_at: Some(Timestamp(rank)), ..task })
    }

    fn page(after: Option<Place>) -> ReadyPage {
        ReadyPage { route: RouteId(1), after, limit: 10, payloads: false }
    }

    #[test]
    fn bounds_fall_with_each_write() {
        let mut floors = Floors::default();
        assert_eq!(floors.after(&page(None)), Some((i64::MIN, i64::MIN)));
        floors.read(&page(None), &[]);
        assert_eq!(floors.after(&page(None)), None, "known to be empty");
        let (late, early) = (queued(7, 500), queued(9, 400));
        let mut changes =
            Changes { inserted: vec![(Arc::clone(&late), RouteId(1), Bytes::new())], ..Changes::default() };
        floors.lower(&changes);
        assert_eq!(floors.after(&page(None)), Some((late.rank(), 6)));
        changes.updated = vec![(Arc::clone(&early), RouteId(1))];
        floors.lower(&changes);
        assert_eq!(floors.after(&page(None)), Some((early.rank(), 8)));
        let after = (late.rank(), late.key);
        assert_eq!(floors.after(&page(Some(after))), Some((late.rank(), 7)));
        // Of another route, nothing is known.
        changes.updated = vec![(early, RouteId(2))];
        floors.lower(&changes);
        assert_eq!(floors.after(&ReadyPage { route: RouteId(2), ..page(None) }), Some((i64::MIN, i64::MIN)));
    }
}
