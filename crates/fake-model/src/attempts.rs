//! Counts how often one step of one conversation was asked for, which only steps with faults need: a retry sends
//! the very same request again, so the conversation cannot tell. Bounded: the oldest key goes first.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;

/// What tells one step of one conversation from all others, as a hash: no prompt is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

impl Key {
    /// A session may run the same script again, and its subagents run scripts of their own: hence all three parts.
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
    counts: HashMap<Key, u32>,
    order: VecDeque<Key>,
}

impl Attempts {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), inner: Mutex::default() }
    }

    /// The number of this attempt, from 0.
    pub(crate) fn next(&self, key: Key) -> u32 {
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
    fn counts_each_key_and_forgets_the_oldest() {
        let attempts = Attempts::new(2);
        let [a, b, c] = [1, 2, 3].map(|turns| Key::new("s", "x", turns));
        assert_eq!([attempts.next(a), attempts.next(a), attempts.next(b)], [0, 1, 0]);
        assert_eq!(attempts.next(c), 0);
        assert_eq!(attempts.next(a), 0, "forgotten");
        assert_eq!(attempts.next(c), 1, "kept");
    }
}
