//! Search in the in-memory store.

use rota_core::TaskKey;

use super::InMemoryStore;
use crate::Error;
use crate::search::{IndexUpdate, SearchIndex, SearchQuery};

impl SearchIndex for InMemoryStore {
    fn search(&self, query: &SearchQuery) -> Result<Vec<TaskKey>, Error> {
        self.index.search(query)
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
