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

/// Times of waiting tasks by UID.
#[derive(Debug)]
pub(super) struct WaitWrites {
    tasks: Mutex<HashMap<String, Times>>,
    /// Start of this process: what an earlier one wrote counts as written then.
    started: Instant,
}

impl WaitWrites {
    pub(super) fn new(started: Instant) -> Self {
        Self { tasks: Mutex::default(), started }
    }

    pub(super) fn ages(&self, uid: &str) -> WaitAges {
        let times = self.tasks.lock().get(uid).copied().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        WaitAges {
            written: times.written.unwrap_or(self.started).elapsed(),
            differs: times.differs.map(|since| since.elapsed()).unwrap_or_default(),
            spread: Duration::from_secs(hasher.finish() % MAX_SPREAD.as_secs()),
        }
    }

    /// Remembers that the wait of a task has been written, or is written later.
    pub(super) fn note(&self, uid: &str, due: &WriteDue) {
        let mut tasks = self.tasks.lock();
        let now = Instant::now();
        match due {
            WriteDue::Now => {
                tasks.insert(uid.to_owned(), Times { written: Some(now), differs: None });
            }
            WriteDue::In(_) => {
                tasks.entry(uid.to_owned()).or_default().differs.get_or_insert(now);
            }
            WriteDue::Refresh(_) | WriteDue::Never => {
                if let Some(times) = tasks.get_mut(uid) {
                    times.differs = None;
                }
            }
        }
    }

    pub(super) fn forget(&self, uid: &str) {
        self.tasks.lock().remove(uid);
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
}
