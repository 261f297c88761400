//! Index of the tasks that need the attention of a person, so that listing them walks no others: kept from commits, and read from the store
//! after a start. Must not know who lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::task::{State, Task};
use rota_core::{Namespace, TaskKey};
use rota_store::{Commit, Error, Filter, Page, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store_client::StoreClient;

/// Tasks that the index holds. With more, lists walk the store.
const MAX_KNOWN: usize = 10_000;
/// Tasks of one page that is read after a start.
const PAGE: usize = 500;
const RETRY_DELAY: Duration = Duration::from_secs(10);
/// States of tasks that have not ended: no other task needs attention, and lists by state have an index.
pub(crate) const UNENDED: [State; 5] =
    [State::Pending, State::Queued, State::Assigned, State::Running, State::InputRequired];

pub(crate) struct Attention {
    known: Mutex<Known>,
    max: usize,
    /// Wakes the reader of the store.
    unread: Notify,
}

impl Default for Attention {
    fn default() -> Self {
        Self { known: Mutex::default(), max: MAX_KNOWN, unread: Notify::default() }
    }
}

#[derive(Default)]
struct Known {
    tasks: BTreeMap<TaskKey, Namespace>,
    /// Tasks that commits have changed since a page was asked of the store, which may have older records of them.
    changed: Option<BTreeSet<TaskKey>>,
    /// Whether the store was read to its end.
    is_read: bool,
    /// Whether some had no room.
    is_full: bool,
}

impl Known {
    fn apply(&mut self, task: &Task, max: usize) {
        if let Some(changed) = &mut self.changed {
            changed.insert(task.key);
        }
        match task.needs_attention() {
            true => self.add(task, max),
            false => drop(self.tasks.remove(&task.key)),
        }
    }

    fn add(&mut self, task: &Task, max: usize) {
        match self.tasks.len() < max || self.tasks.contains_key(&task.key) {
            true => drop(self.tasks.insert(task.key, task.namespace.clone())),
            false => self.is_full = true,
        }
    }

    /// Returns the keys of a page, or nothing if others may need attention, too.
    fn page(&self, filter: &Filter) -> Option<Vec<TaskKey>> {
        if !self.is_read || self.is_full {
            return None;
        }
        let older = self.tasks.range(..filter.before.unwrap_or(TaskKey(u64::MAX))).rev();
        let fits = |namespace: &Namespace| filter.namespace.as_ref().is_none_or(|wanted| wanted == namespace);
        Some(older.filter(|(_, own)| fits(own)).map(|(key, _)| *key).take(filter.limit).collect())
    }
}

impl Attention {
    /// Takes in the tasks that a commit has changed.
    pub(crate) fn observe(&self, commit: &Commit) {
        if commit.tasks.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        for change in &commit.tasks {
            known.apply(&change.task, self.max);
        }
        if known.is_full && known.tasks.len() <= self.max / 2 {
            (known.is_read, known.is_full) = (false, false);
            self.unread.notify_one();
        }
    }

    /// Returns tasks that need attention, newest first. As long as the index is not complete, the store looks for them.
    pub(crate) async fn list(&self, store: &dyn Store, mut filter: Filter) -> Result<Page, Error> {
        let Some(keys) = self.known.lock().page(&filter) else {
            return store.list(filter).await;
        };
        let next = keys.last().copied().filter(|_| keys.len() == filter.limit);
        filter.keys = Some(keys);
        Ok(Page { next, ..store.list(filter).await? })
    }

    /// Reads the tasks of the store until `stop`: after the start, and when there is room again for those that had none.
    pub(crate) async fn run(&self, store: &StoreClient, stop: CancellationToken) {
        let read = async {
            loop {
                match self.read(store.reads()).await {
                    Ok(()) => self.unread.notified().await,
                    Err(error) => {
                        tracing::warn!(%error, "failed to read the tasks that need attention, retrying");
                        tokio::time::sleep(RETRY_DELAY).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(read).await;
    }

    async fn read(&self, store: &dyn Store) -> Result<(), Error> {
        let mut filter =
            Filter { states: UNENDED.to_vec(), attention: true, limit: PAGE, ..Filter::default() };
        loop {
            self.known.lock().changed = Some(BTreeSet::new());
            let page = store.list(filter.clone()).await;
            let mut known = self.known.lock();
            let changed = known.changed.take().unwrap_or_default();
            let page = page?;
            for task in page.tasks.iter().filter(|task| !changed.contains(&task.key)) {
                known.add(task, self.max);
            }
            filter.before = page.next;
            if page.next.is_none() || known.is_full {
                known.is_read = true;
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rota_core::target::Target;
    use rota_core::{AgentName, RouteId, TaskId};
    use rota_store::TaskChange;
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;
    use uuid::Uuid;

    use super::*;

    fn task(key: u64, namespace: &str, failures: u32) -> Task {
        let agent = Target::Agent(AgentName::new("a").unwrap());
        let id = TaskId(Uuid::from_u128(key.into()));
        Task { key: TaskKey(key), failures, ..Task::new(id, Namespace::new(namespace).unwrap(), agent) }
    }

    fn commit(tasks: impl IntoIterator<Item = Task>) -> Commit {
        let change = |task| TaskChange {
            task: Arc::new(task),
            route: RouteId(1),
            before: None,
            events: Arc::default(),
            revision: 0,
            dispatch: None,
            identified: false,
        };
        Commit { tasks: tasks.into_iter().map(change).collect(), ..Commit::default() }
    }

    fn keys(attention: &Attention, namespace: Option<&str>, before: Option<u64>) -> Option<Vec<u64>> {
        let namespace = namespace.map(|name| Namespace::new(name).unwrap());
        let filter = Filter { namespace, before: before.map(TaskKey), limit: 2, ..Filter::default() };
        let keys = attention.known.lock().page(&filter)?;
        Some(keys.into_iter().map(|key| key.0).collect())
    }

    #[tokio::test]
    async fn index_is_used_while_it_is_complete() {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::new(|| rota_core::Timestamp(1))).unwrap();
        let attention = Attention { max: 4, ..Attention::default() };
        attention.observe(&commit([task(1, "n", 3), task(2, "m", 3), task(3, "n", 2)]));
        assert_eq!(keys(&attention, None, None), None, "the store was not read");
        attention.read(&store).await.unwrap();
        assert_eq!(keys(&attention, None, None), Some(vec![2, 1]));
        attention.observe(&commit([task(3, "n", 3), task(4, "n", 5), task(2, "m", 0)]));
        assert_eq!(keys(&attention, Some("n"), None), Some(vec![4, 3]));
        assert_eq!(keys(&attention, Some("n"), Some(3)), Some(vec![1]));
        // One that has no room is found by the store alone, until the store was read again.
        attention.observe(&commit([task(5, "n", 3), task(6, "n", 3)]));
        assert_eq!(keys(&attention, None, None), None);
        attention.observe(&commit([task(1, "n", 0), task(3, "n", 0)]));
        assert_eq!(keys(&attention, None, None), None);
        attention.unread.notified().await;
        attention.read(&store).await.unwrap();
        assert_eq!(keys(&attention, None, None), Some(vec![5, 4]));
        // A page of the store is older than a commit that has come since.
        attention.known.lock().changed = Some(BTreeSet::new());
        attention.observe(&commit([task(4, "n", 0)]));
        assert_eq!(attention.known.lock().changed.take(), Some(BTreeSet::from([TaskKey(4)])));
        store.close().await;
    }
}
