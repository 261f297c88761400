//! Index in memory: looks at every task.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use rota_core::TaskKey;

use super::{IndexUpdate, IndexedTask, SearchQuery, of_namespace};
use crate::Error;

#[derive(Debug, Default)]
pub(crate) struct InMemoryIndex(RwLock<Contents>);

#[derive(Debug, Default)]
struct Contents {
    revision: Option<u64>,
    tasks: BTreeMap<TaskKey, IndexedTask>,
}

fn fits(task: &IndexedTask, query: &SearchQuery) -> bool {
    let words = task.words();
    let namespace = query.namespace.as_ref().map(of_namespace);
    namespace.is_none_or(|namespace| words.contains(&namespace))
        && query.words.iter().all(|wanted| words.iter().any(|word| wanted.finds(word)))
}

impl InMemoryIndex {
    pub(crate) fn search(&self, query: &SearchQuery) -> Result<Vec<TaskKey>, Error> {
        let contents = self.0.read();
        let older = contents.tasks.range(..query.before.unwrap_or(TaskKey(u64::MAX))).rev();
        let fitting = older.filter(|(_, task)| fits(task, query));
        Ok(fitting.map(|(key, _)| *key).take(query.limit).collect())
    }

    pub(crate) fn indexed_revision(&self) -> Result<Option<u64>, Error> {
        Ok(self.0.read().revision)
    }

    pub(crate) fn update_index(&self, update: &IndexUpdate) -> Result<bool, Error> {
        let mut contents = self.0.write();
        match update.after {
            Some(_) if contents.revision != update.after => return Ok(false),
            Some(_) => {}
            None => *contents = Contents::default(),
        }
        contents.revision = Some(update.through);
        contents.tasks.extend(update.tasks.iter().map(|task| (task.key, task.clone())));
        contents.tasks.retain(|key, _| !update.removed.contains(key));
        Ok(true)
    }

    pub(crate) fn indexed_keys(&self, after: TaskKey, limit: usize) -> Result<Vec<TaskKey>, Error> {
        let contents = self.0.read();
        Ok(contents
            .tasks
            .range(TaskKey(after.0.saturating_add(1))..)
            .map(|(key, _)| *key)
            .take(limit)
            .collect())
    }
}
