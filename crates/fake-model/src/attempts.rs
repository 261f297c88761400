//! Counts the requests for each step that has faults: a retry sends the same request again, so the conversation
//! does not show it. Bounded: the oldest key is evicted.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;

/// Identifies a step of a conversation, as a hash: no prompt is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StepKey(u64);

impl StepKey {
    /// All three parts count: a session may repeat a script, and its subagents run scripts of their own.
    pub(crate) fn new(session: &str, script: &str, turns: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        (session, script, turns).hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[derive(Debug)]
pub(crate) struct Attempts {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    counts: HashMap<StepKey, u32>,
    order: VecDeque<StepKey>,
}

impl Attempts {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), inner: Mutex::default() }
    }

    /// Returns the number of this attempt, from 0.
    pub(crate) fn next(&self, key: StepKey) -> u32 {
        let mut inner = self.inner.lock();
        if let Some(count) = inner.counts.get_mut(&key) {
            *count = count.saturating_add(1);
            return *count;
        }
        if inner.order.len() >= self.limit
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.counts.remove(&oldest);
        }
        inner.order.push_back(key);
        inner.counts.insert(key, 0);
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_and_oldest_evicted() {
        let attempts = Attempts::new(2);
        let [a, b, c] = [1, 2, 3].map(|turns| StepKey::new("s", "x", turns));
        assert_eq!([attempts.next(a), attempts.next(a), attempts.next(b)], [0, 1, 0]);
        assert_eq!(attempts.next(c), 0);
        assert_eq!(attempts.next(a), 0, "forgotten");
        assert_eq!(attempts.next(c), 1, "kept");
    }
}
