//! Search in the in-memory store.

use std::collections::BTreeSet;

use rota_core::TaskKey;

use super::InMemoryStore;
use crate::Error;
use crate::search::{ChangedTexts, IndexUpdate, SearchIndex, SearchQuery};

impl SearchIndex for InMemoryStore {
    fn search(&self, query: &SearchQuery) -> Result<Vec<TaskKey>, Error> {
        self.index.search(query)
    }

    fn changed_texts(&self, after: u64, entries: usize) -> Result<ChangedTexts, Error> {
        let state = self.state.read();
        let mut changed = ChangedTexts::default();
        let mut seen = BTreeSet::new();
        for (count, (&revision, (key, events))) in
            state.log.range(after.saturating_add(1)..).take(entries).enumerate()
        {
            changed.last = Some(revision);
            changed.more = count + 1 == entries;
            let Some((task, _)) = state.tasks.get(key) else { continue };
            let is_end = || {
                let last = state.log.iter().rev().find(|(_, (of, _))| of == key);
                task.state.is_final() && last.is_some_and(|(last, _)| *last == revision)
            };
            if (events.first().is_some_and(|first| first.log_seq == 1) || is_end()) && seen.insert(*key) {
                changed.tasks.push((revision, task.clone()));
            }
        }
        Ok(changed)
    }

    fn indexed_revision(&self) -> Result<Option<u64>, Error> {
        self.index.indexed_revision()
    }

    fn update_index(&self, update: &IndexUpdate) -> Result<bool, Error> {
        self.index.update_index(update)
    }

    fn indexed_keys(&self, after: TaskKey, limit: usize) -> Result<Vec<TaskKey>, Error> {
        self.index.indexed_keys(after, limit)
    }
}
