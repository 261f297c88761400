//! Retry delay per object. `kube::runtime` has none: without it, a failing object would be retried as often as a
//! healthy one changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use parking_lot::Mutex;

const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Remaining delays of failing objects, by object.
#[derive(Debug)]
pub(crate) struct Backoff<K>(Mutex<HashMap<K, ExponentialBackoff>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Records a failure of an object. Returns the delay before its next reconciliation.
    pub(crate) fn failed(&self, key: K) -> Duration {
        let mut objects = self.0.lock();
        let delays = objects.entry(key).or_insert_with(|| delays(INITIAL_BACKOFF, MAX_BACKOFF));
        delays.next().unwrap_or(MAX_BACKOFF)
    }

    /// Forgets the failures of an object that was reconciled or deleted.
    pub(crate) fn reset(&self, key: &K) {
        self.0.lock().remove(key);
    }
}

/// Returns an endless sequence of delays that double up to a maximum, with jitter.
pub(crate) fn delays(initial: Duration, max: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(initial)
        .with_max_delay(max)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_per_object() {
        let backoff = Backoff::default();
        let delays: Vec<_> = (0..12).map(|_| backoff.failed("a")).collect();
        assert!(delays[0] < 2 * INITIAL_BACKOFF, "{delays:?}");
        assert!(delays[11] >= MAX_BACKOFF && delays[11] <= 2 * MAX_BACKOFF, "{delays:?}");
        assert!(backoff.failed("b") < 2 * INITIAL_BACKOFF);
        backoff.reset(&"a");
        assert!(backoff.failed("a") < 2 * INITIAL_BACKOFF);
    }
}
