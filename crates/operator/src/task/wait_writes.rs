//! When the waits of tasks were written last, since when they differ from what was written, and the turns of first statuses.

use std::collections::{HashMap, HashSet};
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
    /// Whether the turn of the first status has come, and the status is not written yet.
    has_turn: bool,
}

#[derive(Debug, Default)]
struct Tasks {
    by_uid: HashMap<String, Times>,
    /// Tasks whose first status is due later, with their places: by namespace and UID.
    bursts: HashMap<String, HashMap<String, usize>>,
}

impl Tasks {
    fn has_turn(&self, uid: &str) -> bool {
        self.by_uid.get(uid).is_some_and(|times| times.has_turn)
    }

    fn join_burst(&mut self, namespace: &str, uid: &str) {
        let burst = self.bursts.entry(namespace.to_owned()).or_default();
        let last = burst.len();
        burst.entry(uid.to_owned()).or_insert(last);
    }

    fn leave_burst(&mut self, namespace: &str, uid: &str) {
        if let Some(burst) = self.bursts.get_mut(namespace) {
            burst.remove(uid);
            if burst.is_empty() {
                self.bursts.remove(namespace);
            }
        }
    }

    /// Returns the place of a task, or the one that it would get.
    fn place(&self, namespace: &str, uid: &str) -> usize {
        if self.has_turn(uid) {
            return 0;
        }
        let burst = self.bursts.get(namespace);
        burst.map_or(0, |burst| burst.get(uid).copied().unwrap_or(burst.len()))
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

    pub(super) fn ages(&self, namespace: &str, uid: &str) -> WaitAges {
        let (times, place) = {
            let tasks = self.tasks.lock();
            (tasks.by_uid.get(uid).copied().unwrap_or_default(), tasks.place(namespace, uid))
        };
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        WaitAges {
            written: times.written.unwrap_or(self.started).elapsed(),
            differs: times.differs.map(|since| since.elapsed()).unwrap_or_default(),
            spread: Duration::from_secs(hasher.finish() % MAX_SPREAD.as_secs()),
            place: u32::try_from(place).unwrap_or(u32::MAX),
        }
    }

    /// Remembers when the status of a waiting task is due, or that it waits no longer. One without a status, of which `is_first` holds,
    /// keeps its place in the burst of its namespace until its turn has come. If the write fails, its retry does not wait for another turn.
    pub(super) fn decided(&self, namespace: &str, uid: &str, is_first: bool, due: &WriteDue) {
        let mut tasks = self.tasks.lock();
        match due {
            WriteDue::In(_) if is_first && tasks.has_turn(uid) => {}
            WriteDue::In(_) if is_first => tasks.join_burst(namespace, uid),
            WriteDue::In(_) => {
                let times = tasks.by_uid.entry(uid.to_owned()).or_default();
                times.differs.get_or_insert_with(Instant::now);
            }
            WriteDue::Now => {
                tasks.leave_burst(namespace, uid);
                if is_first {
                    tasks.by_uid.entry(uid.to_owned()).or_default().has_turn = true;
                }
            }
            WriteDue::Refresh(_) | WriteDue::Never => {
                tasks.leave_burst(namespace, uid);
                if let Some(times) = tasks.by_uid.get_mut(uid) {
                    times.differs = None;
                }
            }
        }
    }

    /// Remembers that the wait of a task has been written.
    pub(super) fn written(&self, uid: &str) {
        let times = Times { written: Some(Instant::now()), ..Times::default() };
        self.tasks.lock().by_uid.insert(uid.to_owned(), times);
    }

    pub(super) fn forget(&self, namespace: &str, uid: &str) {
        let mut tasks = self.tasks.lock();
        tasks.by_uid.remove(uid);
        tasks.leave_burst(namespace, uid);
    }

    /// Forgets all tasks but these.
    pub(super) fn retain(&self, uids: &HashSet<String>) {
        let mut tasks = self.tasks.lock();
        tasks.by_uid.retain(|uid, _| uids.contains(uid));
        tasks.bursts.retain(|_, burst| {
            burst.retain(|uid, _| uids.contains(uid));
            !burst.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: WriteDue = WriteDue::In(Duration::from_secs(1));

    fn places(waits: &WaitWrites, namespace: &str, uids: &[&str]) -> Vec<u32> {
        uids.iter().map(|uid| waits.ages(namespace, uid).place).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn times_of_a_wait_are_kept_until_it_is_written() {
        let waits = WaitWrites::new(Instant::now());
        let second = Duration::from_secs(1);
        let ages = || (waits.ages("team", "a").written, waits.ages("team", "a").differs);
        tokio::time::advance(second).await;
        assert_eq!(ages(), (second, Duration::ZERO), "an earlier process may have written it");
        waits.decided("team", "a", false, &LATER);
        tokio::time::advance(second).await;
        waits.decided("team", "a", false, &LATER);
        assert_eq!(ages(), (2 * second, second));
        waits.decided("team", "a", false, &WriteDue::Now);
        assert_eq!(ages(), (2 * second, second), "the write may fail");
        waits.written("a");
        tokio::time::advance(second).await;
        assert_eq!(ages(), (second, Duration::ZERO));
        waits.forget("team", "a");
        assert_eq!(ages(), (3 * second, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn first_statuses_have_places_in_their_namespace() {
        let waits = WaitWrites::new(Instant::now());
        for uid in ["a", "b", "b", "c", "d"] {
            waits.decided("team", uid, true, &LATER);
        }
        assert_eq!(places(&waits, "team", &["a", "b", "c", "d", "next"]), [0, 1, 2, 3, 4]);
        assert_eq!(places(&waits, "other", &["next"]), [0], "a burst delays its own namespace only");
        waits.decided("team", "has-a-status", false, &LATER);
        assert_eq!(places(&waits, "team", &["next"]), [4]);
        // Its turn has come, and it has started.
        waits.decided("team", "a", true, &WriteDue::Now);
        waits.decided("team", "b", true, &WriteDue::Never);
        assert_eq!(places(&waits, "team", &["c", "d", "next"]), [2, 3, 2], "the others keep theirs");
        waits.forget("team", "c");
        waits.forget("team", "c");
        assert_eq!(places(&waits, "team", &["next"]), [1]);
        waits.forget("team", "d");
        assert!(waits.tasks.lock().bursts.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failed_first_write_needs_no_second_turn() {
        let waits = WaitWrites::new(Instant::now());
        for uid in ["a", "b", "c"] {
            waits.decided("team", uid, true, &LATER);
        }
        waits.decided("team", "a", true, &WriteDue::Now);
        assert_eq!(places(&waits, "team", &["a", "next"]), [0, 2]);
        // Many other writes are under way.
        waits.decided("team", "a", true, &LATER);
        assert_eq!(places(&waits, "team", &["a", "next"]), [0, 2], "it is in no burst");
        waits.written("a");
        assert_eq!(places(&waits, "team", &["a"]), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn other_tasks_are_forgotten() {
        let waits = WaitWrites::new(Instant::now());
        for uid in ["a", "b"] {
            waits.written(uid);
            waits.decided("team", uid, true, &LATER);
            waits.decided(uid, uid, true, &LATER);
        }
        waits.retain(&["b".to_owned()].into());
        let tasks = waits.tasks.lock();
        assert_eq!(tasks.by_uid.keys().collect::<Vec<_>>(), ["b"]);
        let mut kept: Vec<_> =
            tasks.bursts.iter().map(|(namespace, burst)| (namespace.as_str(), burst.len())).collect();
        kept.sort_unstable();
        assert_eq!(kept, [("b", 1), ("team", 1)]);
    }
}
