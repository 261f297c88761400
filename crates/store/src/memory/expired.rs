//! What a prune reads: the oldest rows of each kind.

use rota_core::TaskKey;
use rota_core::task::Event;

use super::Contents;
use super::oldest::{keys, oldest};
use crate::{Budget, ExpiredPage, ExpiredRow, ExpiredRows, LogSize, LogsPage, Session, THREAD_TTL, Thread};

/// Returns about the stored size of a row of the log.
fn row_size(events: &[Event]) -> LogSize {
    let mut budget = Budget::UNLIMITED;
    budget.spend(events);
    LogSize { rows: 1, bytes: (Budget::UNLIMITED.bytes - budget.bytes) as u64 }
}

impl Contents {
    fn add_log(&self, key: TaskKey, logs: &mut LogSize) {
        let log = self.log.values().filter(|(task, _)| *task == key);
        log.for_each(|(_, events)| logs.add(row_size(events)));
    }

    /// Returns how many tasks have logs up to a bound, with the one that exceeds it.
    pub(super) fn within(&self, page: &LogsPage) -> usize {
        let mut logs = LogSize::default();
        let fits = |key: &&TaskKey| {
            let fits = !logs.exceeds(page.bound);
            self.add_log(**key, &mut logs);
            fits
        };
        page.tasks.iter().take_while(fits).count()
    }

    pub(super) fn expired(&self, page: &ExpiredPage) -> ExpiredRows {
        let ended = |session: &Session| (!session.open).then_some(session.since);
        let sessions = keys(oldest(&self.sessions, page.left_before, ended), page.limit);
        let Some(before) = page.ended_before else {
            let more_names = sessions.len() == page.limit;
            return ExpiredRows { sessions, more_names, ..ExpiredRows::default() };
        };
        let tasks = oldest(&self.tasks, before, |(task, _)| crate::stored_task_end(task)).into_iter();
        let orphans = oldest(&self.idempotency_keys, before, |(.., orphaned_at)| *orphaned_at);
        let mut rows = ExpiredRows { sessions, keys: keys(orphans, page.limit), ..ExpiredRows::default() };
        let idle = oldest(&self.threads, before - THREAD_TTL, Thread::idle_since);
        rows.threads = keys(idle, page.limit)
            .into_iter()
            .filter_map(|name| Some((name.clone(), Ok(self.threads.get(&name)?.clone()))))
            .collect();
        let names = [rows.sessions.len(), rows.keys.len(), rows.threads.len()];
        rows.more_names = names.contains(&page.limit);
        let mut logs = LogSize::default();
        for (ended_at, key) in tasks.filter(|place| page.after.is_none_or(|after| *place > after)) {
            if rows.tasks.len() == page.limit || logs.exceeds(page.logs) {
                rows.more_tasks = true;
                break;
            }
            let Some(row) = self.row(key) else { continue };
            if !row.has_dependents {
                self.add_log(key, &mut logs);
            }
            rows.tasks.push(ExpiredRow { ended_at, row });
        }
        rows
    }
}
