//! Selection of the oldest entries of a map, for a prune. Must not know what they are.

use rota_core::Timestamp;

/// Returns the keys of the oldest entries that ended before a time.
pub(super) fn oldest<'a, K: Ord + Clone + 'a, V: 'a>(
    all: impl IntoIterator<Item = (&'a K, &'a V)>,
    before: Timestamp,
    ended: impl Fn(&V) -> Option<Timestamp>,
) -> Vec<(Timestamp, K)> {
    let mut old: Vec<_> =
        all.into_iter().filter_map(|(key, value)| Some((ended(value)?, key.clone()))).collect();
    old.retain(|(at, _)| *at < before);
    old.sort_unstable();
    old
}

pub(super) fn keys<K>(old: Vec<(Timestamp, K)>, limit: usize) -> Vec<K> {
    old.into_iter().take(limit).map(|(_, key)| key).collect()
}
