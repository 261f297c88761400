//! Loops that go on as long as their process: what each is for, and when it last did its work. Each round of a loop
//! is noted here, and here alone it is judged. Knows nothing of what loops do.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::clock::unix_micros;
use crate::metrics::Page;

/// A round that takes longer hangs.
const STUCK: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    r#loop: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    r#loop: &'static str,
    outcome: &'static str,
}

/// How a loop fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for something to do.
    Waiting,
    /// It does something.
    Working,
    /// Its last round failed; it goes on.
    Failing,
    /// It has been at one round for longer than a minute.
    Stuck,
    /// It goes on no more.
    Ended,
}

/// A loop, as it is now. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// How it fares.
    pub state: State,
    /// When a round last succeeded.
    pub last_success: Option<i64>,
    /// Rounds that succeeded.
    pub succeeded: u64,
    /// Rounds that failed.
    pub failed: u64,
    /// What the last round failed with; empty if it succeeded.
    pub error: String,
}

#[derive(Debug)]
struct One {
    name: &'static str,
    help: &'static str,
    /// 0 while there is none.
    last_success: AtomicI64,
    /// 0 while it waits.
    busy_since: AtomicI64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    error: Mutex<String>,
    ended: AtomicBool,
}

/// The loops of a process, or of a part of it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Loops(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: Mutex<Vec<Arc<One>>>,
    success: Family<Of, Gauge<f64, AtomicU64>>,
    rounds: Family<Ended, Counter>,
}

/// One loop's own hold on its entry. A loop whose hold is dropped has ended.
#[derive(Debug)]
pub struct Beat {
    one: Arc<One>,
    loops: Loops,
}

/// A round that is under way. One that is dropped without a word counts for nothing.
#[derive(Debug)]
#[must_use = "a round must end with a word on how it went"]
pub struct Round<'a>(&'a Beat);

impl Loops {
    /// Enters a loop. One of that name which was there before is forgotten.
    pub fn enter(&self, name: &'static str, help: &'static str) -> Beat {
        let one = Arc::new(One {
            name,
            help,
            last_success: AtomicI64::new(0),
            busy_since: AtomicI64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            error: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let mut all = self.0.all.lock();
        all.retain(|known| known.name != name);
        all.push(Arc::clone(&one));
        Beat { one, loops: self.clone() }
    }

    /// Every loop, by name.
    pub fn all(&self) -> Vec<Seen> {
        let now = unix_micros();
        let mut all: Vec<_> = self.0.all.lock().iter().map(|one| one.seen(now)).collect();
        all.sort_unstable_by_key(|seen| seen.name);
        all
    }

    /// Adds their figures to a page.
    pub fn add_to(&self, page: &mut Page) {
        let help = "When a round of a background loop last succeeded, since the Unix epoch";
        let (name, unit) = ("rota_loop_last_success_timestamp", Some(Unit::Seconds));
        page.add(name, unit, &["loop"], help, &self.0.success);
        let help = "Rounds of background loops: succeeded or failed";
        page.add("rota_loop_rounds", None, &["loop", "outcome"], help, &self.0.rounds);
    }
}

impl One {
    fn seen(&self, now: i64) -> Seen {
        let error = self.error.lock().clone();
        let busy = Some(self.busy_since.load(Ordering::Relaxed)).filter(|at| *at != 0);
        let state = match busy {
            _ if self.ended.load(Ordering::Relaxed) => State::Ended,
            Some(since) if u128::try_from(now - since).is_ok_and(|took| took > STUCK.as_micros()) => {
                State::Stuck
            }
            _ if !error.is_empty() => State::Failing,
            Some(_) => State::Working,
            None => State::Waiting,
        };
        Seen {
            name: self.name,
            help: self.help,
            state,
            last_success: Some(self.last_success.load(Ordering::Relaxed)).filter(|at| *at != 0),
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            error,
        }
    }
}

impl Beat {
    /// Begins a round.
    pub fn round(&self) -> Round<'_> {
        self.one.busy_since.store(unix_micros(), Ordering::Relaxed);
        Round(self)
    }

    fn count(&self, outcome: &'static str) {
        self.loops.0.rounds.get_or_create(&Ended { r#loop: self.one.name, outcome }).inc();
    }
}

impl Round<'_> {
    /// It did what it was to do.
    pub fn succeeded(self) {
        let (now, one) = (unix_micros(), &self.0.one);
        one.last_success.store(now, Ordering::Relaxed);
        one.succeeded.fetch_add(1, Ordering::Relaxed);
        one.error.lock().clear();
        #[expect(clippy::cast_precision_loss, reason = "exact to the microsecond for centuries")]
        let seconds = now as f64 / 1e6;
        self.0.loops.0.success.get_or_create(&Of { r#loop: one.name }).set(seconds);
        self.0.count("succeeded");
    }

    /// It did not.
    pub fn failed(self, error: impl Display) {
        let one = &self.0.one;
        one.failed.fetch_add(1, Ordering::Relaxed);
        let message = error.to_string();
        *one.error.lock() = if message.is_empty() { "it failed".to_owned() } else { message };
        self.0.count("failed");
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.one.busy_since.store(0, Ordering::Relaxed);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.one.ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(loops: &Loops) -> State {
        loops.all()[0].state
    }

    #[test]
    fn a_loop_is_judged_by_its_rounds() {
        let loops = Loops::default();
        let beat = loops.enter("sweep", "Sweeps");
        assert_eq!((state(&loops), loops.all()[0].last_success), (State::Waiting, None));
        let round = beat.round();
        assert_eq!(state(&loops), State::Working);
        round.failed("no broom");
        assert_eq!((state(&loops), loops.all()[0].error.as_str()), (State::Failing, "no broom"));
        // One that is given up says nothing: what was known before stays.
        drop(beat.round());
        assert_eq!(state(&loops), State::Failing);
        beat.round().succeeded();
        let seen = loops.all().remove(0);
        assert_eq!((seen.state, seen.succeeded, seen.failed), (State::Waiting, 1, 1));
        assert!(seen.last_success.is_some() && seen.error.is_empty());
        let mut page = Page::new();
        loops.add_to(&mut page);
        let (_, page) = page.write(None).unwrap();
        assert!(page.contains("rota_loop_last_success_timestamp_seconds{loop=\"sweep\"} "), "{page}");
        assert!(page.contains("rota_loop_rounds_total{loop=\"sweep\",outcome=\"failed\"} 1"), "{page}");
        drop(beat);
        assert_eq!(state(&loops), State::Ended);
        // The next of its name takes its place.
        let _beat = loops.enter("sweep", "Sweeps");
        assert_eq!((loops.all().len(), state(&loops)), (1, State::Waiting));
    }

    #[test]
    fn a_round_without_end_is_stuck() {
        let loops = Loops::default();
        let beat = loops.enter("sweep", "Sweeps");
        let _round = beat.round();
        let one = Arc::clone(&beat.one);
        let later = |after: Duration| unix_micros() + i64::try_from(after.as_micros()).unwrap();
        assert_eq!(one.seen(later(STUCK / 2)).state, State::Working);
        assert_eq!(one.seen(later(STUCK * 2)).state, State::Stuck);
    }
}
