//! Full-text index of tasks: which words a task has, what is asked for, and what a store keeps. Knows no payload: the control plane
//! takes the texts from it.
//!
//! The index is derived and follows the commits: it knows the revision that it is complete up to. It has the words of the tasks and no
//! text, is no part of backups and exports, and may be lost: it is built again from the log of all tasks.

mod memory;
mod words;

use std::collections::BTreeSet;

use rota_core::task::Task;
use rota_core::text::prefix;
use rota_core::{Namespace, TaskKey};

pub(crate) use memory::InMemoryIndex;
pub use words::{MIN_PREFIX_CHARS, Word, first_hit, query_words};

use crate::Error;

/// Version of the words and of how stores keep them. An index of another one is built again.
pub const INDEX_VERSION: u32 = 2;
/// Bytes of one text of a task that are indexed.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

/// Task with the words of its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedTask {
    pub key: TaskKey,
    /// Different words in order, the namespace's among them.
    words: Vec<String>,
}

impl IndexedTask {
    /// Takes the words of texts, each up to [`MAX_TEXT_BYTES`].
    pub fn new<'a>(key: TaskKey, namespace: &Namespace, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let texts = texts.into_iter().map(|text| prefix(text, MAX_TEXT_BYTES));
        // A set: a text may have one word many thousand times.
        let mut words: BTreeSet<_> = texts.flat_map(words::of).map(|(_, word)| word).collect();
        words.insert(of_namespace(namespace));
        Self { key, words: words.into_iter().collect() }
    }

    /// Returns the words: letters and digits, but for that of the namespace, which has other ASCII characters, too.
    pub fn words(&self) -> &[String] {
        &self.words
    }
}

/// Returns the word that all tasks of a namespace have. No text has it.
pub fn of_namespace(namespace: &Namespace) -> String {
    format!("/{namespace}")
}

/// Words that a task must have, all of them.
#[derive(Debug, Clone, Default)]
pub struct SearchQuery {
    pub words: Vec<Word>,
    pub namespace: Option<Namespace>,
    /// Only tasks that are older than this one.
    pub before: Option<TaskKey>,
    pub limit: usize,
}

/// Change of an index, in one transaction.
#[derive(Debug, Clone, Default)]
pub struct IndexUpdate {
    /// Revision that the index must be complete up to; `None` makes an empty one first.
    pub after: Option<u64>,
    /// Revision that it is complete up to then.
    pub through: u64,
    /// Tasks with their words, in place of what the index has of them.
    pub tasks: Vec<IndexedTask>,
    pub removed: Vec<TaskKey>,
}

/// Tasks whose texts have changed, by a page of the log of all tasks: those that were created, and those that have ended.
#[derive(Debug, Clone, Default)]
pub struct ChangedTexts {
    /// Last revision of the page, also if its entries change no text; `None` if the log has no more.
    pub last: Option<u64>,
    /// Whether there may be more entries.
    pub more: bool,
    /// Each once, as it is now, with the first revision of the page that has changed it. Those that cannot be decoded are missing.
    pub tasks: Vec<(u64, Task)>,
}

/// Index of the tasks of a store. Blocking.
pub trait SearchIndex: Send + Sync {
    /// Returns the tasks with these words, newest first. Some may have been removed from the store.
    fn search(&self, query: &SearchQuery) -> Result<Vec<TaskKey>, Error>;
    /// Returns what at most so many entries of the log after a revision have changed. Logs are not read for it.
    fn changed_texts(&self, after: u64, entries: usize) -> Result<ChangedTexts, Error>;
    /// Returns the revision that the index is complete up to; `None` if there is none of this version.
    fn indexed_revision(&self) -> Result<Option<u64>, Error>;
    /// Makes a change, completely or not at all. Returns whether the index was complete up to the expected revision.
    fn update_index(&self, update: &IndexUpdate) -> Result<bool, Error>;
    /// Returns tasks of the index with larger keys, smallest first.
    fn indexed_keys(&self, after: TaskKey, limit: usize) -> Result<Vec<TaskKey>, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        let text = format!("{} last", "a ".repeat(MAX_TEXT_BYTES / 2));
        let task = IndexedTask::new(TaskKey(1), &Namespace::new("n").unwrap(), [text.as_str(), "second a"]);
        assert_eq!(task.words(), ["/n", "a", "second"]);
    }
}
