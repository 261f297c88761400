//! Rows that a batch has loaded, with the batch's own changes on top. Nothing is written before the end of the batch.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use rota_core::TaskId;

use crate::{Changes, ExpiredRows, Keys, NameKey, Rows, Session, SessionKey, Stored, WaitsKey};

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

impl<K: Eq + Hash + Clone, V: Clone> Cells<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)?.value.as_ref()
    }

    /// Takes in loaded rows; a key without a row has none.
    fn learn(&mut self, keys: &[K], rows: Vec<(K, V)>) {
        for (key, value) in rows {
            self.0.entry(key).or_insert(Cell { value: Some(value), changed: false });
        }
        for key in keys {
            if !self.0.contains_key(key) {
                self.0.insert(key.clone(), Cell { value: None, changed: false });
            }
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

    fn drain_changed(&mut self) -> impl Iterator<Item = (K, V)> {
        self.0.drain().filter(|(_, cell)| cell.changed).filter_map(|(key, cell)| Some((key, cell.value?)))
    }
}

/// Tasks linked to one object: those stored, unless removed, and those added.
#[derive(Debug, Default)]
struct Links {
    /// The stored links; `None` if they are not loaded.
    stored: Option<Vec<TaskId>>,
    removed: bool,
    added: Vec<TaskId>,
}

#[derive(Debug)]
pub(super) struct LinkSets<K>(HashMap<K, Links>);

impl<K> Default for LinkSets<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone + Ord> LinkSets<K> {
    pub(super) fn knows(&self, key: &K) -> bool {
        self.0.get(key).is_some_and(|links| links.removed || links.stored.is_some())
    }

    /// Takes in loaded rows; a key without a row has no links.
    fn learn(&mut self, keys: &[K], rows: Vec<(K, Vec<TaskId>)>) {
        for (key, ids) in rows {
            let links = self.0.entry(key).or_default();
            links.stored.get_or_insert(ids);
        }
        for key in keys {
            self.none_stored(key);
        }
    }

    /// Takes in that a key has no stored links, unless some are known.
    pub(super) fn none_stored(&mut self, key: &K) {
        self.0.entry(key.clone()).or_default().stored.get_or_insert_default();
    }

    pub(super) fn add(&mut self, key: K, id: TaskId) {
        self.0.entry(key).or_default().added.push(id);
    }

    /// Removes and returns the links of a known key, lowest id first.
    pub(super) fn take(&mut self, key: &K) -> Vec<TaskId> {
        let Some(links) = self.0.get_mut(key) else { return Vec::new() };
        let mut ids = std::mem::take(&mut links.added);
        if !links.removed
            && let Some(stored) = &links.stored
            && !stored.is_empty()
        {
            ids.extend(stored);
            links.removed = true;
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Returns the changes: removed keys, then added links; sorted, so that equal batches write equally.
    fn drain(&mut self) -> (Vec<K>, Vec<(K, TaskId)>) {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (key, links) in self.0.drain() {
            added.extend(links.added.into_iter().map(|id| (key.clone(), id)));
            if links.removed {
                removed.push(key);
            }
        }
        removed.sort_unstable();
        added.sort_unstable();
        added.dedup();
        (removed, added)
    }
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) aliases: Cells<NameKey, TaskId>,
    /// Tasks by their idempotency keys.
    pub(super) keys: Cells<NameKey, TaskId>,
    pub(super) sessions: Cells<SessionKey, Stored<Session>>,
    pub(super) waits: LinkSets<WaitsKey>,
    pub(super) dependents: LinkSets<TaskId>,
    /// Ids without a record: looked up in vain, or removed by the batch.
    pub(super) absent: HashSet<TaskId>,
    /// Due tasks, earliest deadline first; `None` if not loaded.
    pub(super) due: Option<Vec<TaskId>>,
    /// What a prune found; `None` if not loaded.
    pub(super) expired: Option<ExpiredRows>,
}

impl Cache {
    /// Takes in the rows of one load, except records and ready tasks.
    pub(super) fn learn(&mut self, keys: &Keys, rows: &mut Rows) {
        self.aliases.learn(&keys.aliases, std::mem::take(&mut rows.aliases));
        self.keys.learn(&keys.keys, std::mem::take(&mut rows.keys));
        self.sessions.learn(&keys.sessions, std::mem::take(&mut rows.sessions));
        self.waits.learn(&keys.waits, std::mem::take(&mut rows.waits));
        self.dependents.learn(&keys.dependents, std::mem::take(&mut rows.dependents));
        if keys.expired.is_some() {
            self.expired = Some(std::mem::take(&mut rows.expired));
        }
    }

    /// Adds the changed rows to what the batch writes.
    pub(super) fn write_to(&mut self, changes: &mut Changes) {
        changes.aliases.extend(self.aliases.drain_changed());
        changes.aliases.sort_unstable();
        changes.keys.extend(self.keys.drain_changed());
        changes.keys.sort_unstable();
        let sessions = self.sessions.drain_changed().filter_map(|(_, session)| session.ok());
        changes.sessions.extend(sessions);
        changes.sessions.sort_unstable_by(|a, b| (&a.namespace, &a.worker).cmp(&(&b.namespace, &b.worker)));
        (changes.removed_waits, changes.waits) = self.waits.drain();
        (changes.removed_edges, changes.edges) = self.dependents.drain();
    }
}
