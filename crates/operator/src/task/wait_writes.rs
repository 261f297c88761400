//! When the waits of tasks were written last, and since when they differ from what was written.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::status::{WaitAges, WriteDue};

/// Longest further time until the text of a wait is refreshed: those of one route do not become due together.
const MAX_SPREAD: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    written: Option<Instant>,
    differs: Option<Instant>,
}

impl Times {
    /// Whether the first status of a wait is due later.
    fn is_first(self) -> bool {
        self.written.is_none() && self.differs.is_some()
    }
}

#[derive(Debug, Default)]
struct Tasks {
    by_uid: HashMap<String, Times>,
    /// Number of those of which [`Times::is_first`] holds.
    first: usize,
}

impl Tasks {
    fn change(&mut self, uid: &str, change: impl FnOnce(&mut Times)) {
        let times = match self.by_uid.get_mut(uid) {
            Some(times) => times,
            None => self.by_uid.entry(uid.to_owned()).or_default(),
        };
        self.first -= usize::from(times.is_first());
        change(times);
        self.first += usize::from(times.is_first());
    }
}

/// Times of waiting tasks by UID.
#[derive(Debug)]
pub(super) struct WaitWrites {
    tasks: Mutex<Tasks>,
    /// Start of this process: what an earlier one wrote counts as written then.
    started: Instant,
}

impl WaitWrites {
    pub(super) fn new(started: Instant) -> Self {
        Self { tasks: Mutex::default(), started }
    }

    pub(super) fn ages(&self, uid: &str) -> WaitAges {
        let (times, first) = {
            let tasks = self.tasks.lock();
            (tasks.by_uid.get(uid).copied().unwrap_or_default(), tasks.first)
        };
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        WaitAges {
            written: times.written.unwrap_or(self.started).elapsed(),
            differs: times.differs.map(|since| since.elapsed()).unwrap_or_default(),
            spread: Duration::from_secs(hasher.finish() % MAX_SPREAD.as_secs()),
            first,
        }
    }

    /// Remembers that the wait of a task has been written, is written later, or never.
    pub(super) fn note(&self, uid: &str, due: &WriteDue) {
        let mut tasks = self.tasks.lock();
        let now = Instant::now();
        match due {
            WriteDue::Now => tasks.change(uid, |times| *times = Times { written: Some(now), differs: None }),
            WriteDue::In(_) => tasks.change(uid, |times| {
                times.differs.get_or_insert(now);
            }),
            WriteDue::Refresh(_) | WriteDue::Never if tasks.by_uid.contains_key(uid) => {
                tasks.change(uid, |times| times.differs = None);
            }
            WriteDue::Refresh(_) | WriteDue::Never => {}
        }
    }

    pub(super) fn forget(&self, uid: &str) {
        let mut tasks = self.tasks.lock();
        if let Some(times) = tasks.by_uid.remove(uid) {
            tasks.first -= usize::from(times.is_first());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn times_of_a_wait_are_kept_until_it_is_written() {
        let waits = WaitWrites::new(Instant::now());
        let second = Duration::from_secs(1);
        let ages = || (waits.ages("a").written, waits.ages("a").differs);
        tokio::time::advance(second).await;
        assert_eq!(ages(), (second, Duration::ZERO), "an earlier process may have written it");
        waits.note("a", &WriteDue::In(second));
        tokio::time::advance(second).await;
        waits.note("a", &WriteDue::In(second));
        assert_eq!(ages(), (2 * second, second));
        waits.note("a", &WriteDue::Now);
        tokio::time::advance(second).await;
        assert_eq!(ages(), (second, Duration::ZERO));
        waits.forget("a");
        assert_eq!(ages(), (3 * second, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_without_a_status_are_counted() {
        let waits = WaitWrites::new(Instant::now());
        let later = WriteDue::In(Duration::from_secs(1));
        for uid in ["a", "b", "b", "c", "d"] {
            waits.note(uid, &later);
        }
        let first = || waits.ages("a").first;
        assert_eq!(first(), 4);
        waits.note("a", &WriteDue::Now);
        waits.note("a", &later);
        assert_eq!(first(), 3, "the first one was written");
        waits.note("b", &WriteDue::Never);
        waits.forget("c");
        waits.forget("c");
        assert_eq!(first(), 1);
    }
}
