//! Rows that a batch has loaded, with the batch's own changes on top. Nothing is written before the end of the batch.

use std::collections::HashMap;
use std::hash::Hash;

use rota_core::TaskKey;

use crate::{WaitsKey, WaitsPage};

/// A row as the batch sees it.
#[derive(Debug)]
struct Cell<V> {
    value: Option<V>,
    changed: bool,
}

/// Rows of one kind that are read and replaced as a whole.
#[derive(Debug)]
pub(super) struct Cells<K, V>(HashMap<K, Cell<V>>);

impl<K, V> Default for Cells<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone + Ord, V> Cells<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)?.value.as_ref()
    }

    /// Whether a row, or that there is none, is known.
    pub(super) fn knows(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// Takes in that there is no row, unless one is known.
    pub(super) fn learn_absent(&mut self, key: K) {
        self.0.entry(key).or_insert(Cell { value: None, changed: false });
    }

    pub(super) fn learn(&mut self, rows: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in rows {
            self.0.entry(key).or_insert(Cell { value: Some(value), changed: false });
        }
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.0.insert(key, Cell { value: Some(value), changed: true });
    }

    /// Removes a stored row, unless the batch has replaced it.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        if self.0.get(key).is_some_and(|cell| cell.changed) {
            return false;
        }
        self.0.insert(key.clone(), Cell { value: None, changed: false });
        true
    }

    /// Returns the changed rows; sorted, so that equal batches write equally.
    pub(super) fn changed(&mut self) -> Vec<(K, V)> {
        let changed = self.0.drain().filter(|(_, cell)| cell.changed);
        let mut rows: Vec<_> = changed.filter_map(|(key, cell)| Some((key, cell.value?))).collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

/// Tasks that wait for one missing object.
#[derive(Debug, Default)]
struct Waiters {
    /// The first of those stored; `None` if they are not loaded.
    stored: Option<Vec<TaskKey>>,
    more: bool,
    added: Vec<TaskKey>,
    removed: Vec<TaskKey>,
}

/// Tasks that wait for missing objects.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<WaitsKey, Waiters>);

impl Waiting {
    pub(super) fn knows(&self, key: &WaitsKey) -> bool {
        self.0.get(key).is_some_and(|waiters| waiters.stored.is_some())
    }

    /// Whether tasks are known to wait for an object.
    pub(super) fn any(&self, key: &WaitsKey) -> bool {
        let stored = |waiters: &Waiters| waiters.stored.as_ref().is_some_and(|stored| !stored.is_empty());
        self.0.get(key).is_some_and(|waiters| stored(waiters) || !waiters.added.is_empty())
    }

    pub(super) fn learn(&mut self, page: &WaitsPage, rows: Vec<TaskKey>) {
        let waiters = self.0.entry(page.key.clone()).or_default();
        if waiters.stored.is_none() {
            waiters.more = rows.len() == page.limit;
            waiters.stored = Some(rows);
        }
    }

    /// Returns the stored tasks that are known to wait for an object.
    pub(super) fn stored(&self, key: &WaitsKey) -> &[TaskKey] {
        self.0.get(key).and_then(|waiters| waiters.stored.as_deref()).unwrap_or_default()
    }

    /// Returns those that wait for an object, as far as they are known, lowest key first, and whether there are more.
    pub(super) fn present(&self, key: &WaitsKey) -> (Vec<TaskKey>, bool) {
        let Some(waiters) = self.0.get(key) else { return (Vec::new(), false) };
        let stored = waiters.stored.iter().flatten().filter(|task| !waiters.removed.contains(task));
        let mut tasks: Vec<_> = stored.chain(&waiters.added).copied().collect();
        tasks.sort_unstable();
        tasks.dedup();
        (tasks, waiters.more)
    }

    pub(super) fn add(&mut self, key: WaitsKey, task: TaskKey) {
        self.0.entry(key).or_default().added.push(task);
    }

    /// Removes one that waits no longer.
    pub(super) fn remove(&mut self, key: WaitsKey, task: TaskKey) {
        let waiters = self.0.entry(key).or_default();
        waiters.added.retain(|added| *added != task);
        waiters.removed.push(task);
    }

    /// Removes and returns the first of those that wait for an object, lowest key first, and whether there are more: up to
    /// `limit` of those stored.
    pub(super) fn take(&mut self, key: &WaitsKey, limit: usize) -> (Vec<TaskKey>, bool) {
        let Some(waiters) = self.0.get_mut(key) else { return (Vec::new(), false) };
        let mut stored = waiters.stored.replace(Vec::new()).unwrap_or_default();
        waiters.more |= stored.len() > limit;
        stored.truncate(limit);
        waiters.removed.extend(&stored);
        let mut tasks = std::mem::take(&mut waiters.added);
        tasks.extend(stored);
        tasks.sort_unstable();
        tasks.dedup();
        (tasks, waiters.more)
    }

    /// Returns the changes: removed waiters, then added ones; sorted, so that equal batches write equally.
    pub(super) fn changed(&mut self) -> [Vec<(WaitsKey, TaskKey)>; 2] {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (key, waiters) in self.0.drain() {
            removed.extend(waiters.removed.into_iter().map(|task| (key.clone(), task)));
            added.extend(waiters.added.into_iter().map(|task| (key.clone(), task)));
        }
        removed.sort_unstable();
        added.sort_unstable();
        added.dedup();
        [removed, added]
    }
}
