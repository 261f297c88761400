//! How long to wait before an object is tried again. The library that watches has no backoff of an
//! object's own; without one, a broken object would be tried as often as a lucky one.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use parking_lot::Mutex;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// The waits that are left to an object, by object.
#[derive(Debug)]
pub(crate) struct Backoff<K>(Mutex<HashMap<K, ExponentialBackoff>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// It failed again: how long to wait.
    pub(crate) fn failed(&self, key: K) -> Duration {
        let mut objects = self.0.lock();
        objects.entry(key).or_insert_with(|| waits(FIRST, LONGEST)).next().unwrap_or(LONGEST)
    }

    /// It went well, or is gone.
    pub(crate) fn forget(&self, key: &K) {
        self.0.lock().remove(key);
    }
}

/// Waits that double from the first to the longest, each with a part left to chance, without end.
pub(crate) fn waits(first: Duration, longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_each_ones_own() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.failed("a")).collect();
        assert!(waits[0] < 2 * FIRST && waits[11] >= LONGEST && waits[11] <= 2 * LONGEST, "{waits:?}");
        assert!(backoff.failed("b") < 2 * FIRST);
        backoff.forget(&"a");
        assert!(backoff.failed("a") < 2 * FIRST);
    }
}
