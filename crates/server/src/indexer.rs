//! Background task that keeps the full-text index of the store behind the commits: it reads which tasks were created, or have ended, since
//! the revision that the index is complete up to, and takes the texts from specs and results. Commits do not wait for it. Must not know
//! who searches.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rota_core::TaskKey;
use rota_core::task::Task;
use rota_store::search::{IndexUpdate, IndexedTask};
use rota_store::{Error, Filter, Store};
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store_client::StoreClient;
use crate::task_texts::{Texts, with_texts};

/// Entries of the log of one step: what one transaction of the index has at most.
const PAGE: usize = 512;
/// Least time between two times of catching up: those that create thousands of tasks a second are not slowed down by as many
/// transactions, and a short task is indexed once, with its result.
const MIN_INTERVAL: Duration = Duration::from_secs(2);
const RETRY_DELAY: Duration = Duration::from_secs(10);
/// Rest after a step, in times of what the step took, and at most [`MIN_INTERVAL`]: catching up with a million tasks leaves the
/// processors and the disk to those that run.
const REST: u32 = 3;
/// Time after which one that is still behind rests no more: under a load that never ends it would fall back further and further.
const MAX_BEHIND: Duration = Duration::from_mins(10);
/// Tasks that are looked for at a time, among those that were removed.
const SWEEP_PAGE: usize = 500;

/// How far the index is, and what wakes the task.
#[derive(Debug)]
pub(crate) struct IndexState {
    committed: AtomicU64,
    indexed: AtomicU64,
    /// Whether tasks may have been removed from the store that the index has.
    has_removed: AtomicBool,
    /// Whether the next step begins with an empty index.
    must_rebuild: AtomicBool,
    wake: Notify,
}

impl Default for IndexState {
    fn default() -> Self {
        // What was removed before the last end is not known.
        let has_removed = AtomicBool::new(true);
        let (committed, indexed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { committed, indexed, has_removed, must_rebuild: AtomicBool::new(false), wake: Notify::new() }
    }
}

impl IndexState {
    pub(crate) fn committed(&self, revision: u64) {
        self.committed.fetch_max(revision, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn removed(&self) {
        self.has_removed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Builds the index again from the beginning of the log.
    pub(crate) fn rebuild(&self) {
        self.must_rebuild.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Looks for what is to be done, without a commit.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Returns the number of revisions that the index is behind the commits.
    pub(crate) fn lag(&self) -> u64 {
        self.committed.load(Ordering::Relaxed).saturating_sub(self.indexed.load(Ordering::Relaxed))
    }
}

/// Catches up with the commits until `stop`.
pub(crate) async fn run(store: StoreClient, stop: CancellationToken, monitor: TaskMonitor) {
    let (mut sweep, mut is_behind) = (None, true);
    let mut woken = Instant::now();
    let follow = async {
        loop {
            // An activation for each transaction: a long log must not look stuck.
            let activation = monitor.activate();
            let begun = Instant::now();
            match step_with_room(&store, &mut sweep, is_behind).await {
                Ok(Some(more)) => {
                    activation.succeeded();
                    is_behind = more;
                    if more {
                        if woken.elapsed() < MAX_BEHIND {
                            tokio::time::sleep((begun.elapsed() * REST).min(MIN_INTERVAL)).await;
                        }
                        continue;
                    }
                }
                // Not counted: nothing was done.
                Ok(None) => drop(activation),
                Err(error) => {
                    tracing::warn!(%error, "failed to update the search index, retrying");
                    activation.failed(&error);
                    tokio::time::sleep(RETRY_DELAY).await;
                    continue;
                }
            }
            store.index().wake.notified().await;
            tokio::time::sleep(MIN_INTERVAL).await;
            woken = Instant::now();
        }
    };
    stop.run_until_cancelled(follow).await;
}

/// Does one step, unless the volume is nearly full: the index can wait; results cannot. One that is behind takes steps faster than the
/// room is measured otherwise. Returns whether there is more; `None` without room.
async fn step_with_room(
    store: &StoreClient,
    sweep: &mut Option<TaskKey>,
    is_behind: bool,
) -> Result<Option<bool>, Error> {
    if is_behind {
        store.measure_space().await?;
    }
    match store.has_room_for_index() {
        true => step(store.reads(), store.index(), sweep).await.map(Some),
        false => Ok(None),
    }
}

/// Does one transaction of what is to be done. Returns whether there is more. `sweep` is the last task of the index that was looked for
/// in the store, while those that were removed are looked for.
async fn step(store: &dyn Store, state: &IndexState, sweep: &mut Option<TaskKey>) -> Result<bool, Error> {
    let revision = store.revision().await?;
    let rebuilds = state.must_rebuild.load(Ordering::Acquire);
    // One that is ahead follows a history that this store has lost.
    let indexed = store.indexed_revision().await?.filter(|indexed| *indexed <= revision && !rebuilds);
    state.committed.fetch_max(revision, Ordering::Relaxed);
    state.indexed.store(indexed.unwrap_or(0), Ordering::Relaxed);
    let indexed = match indexed {
        Some(indexed) if indexed == revision => indexed,
        behind => {
            if behind.is_none() {
                tracing::info!(revision, "building the search index");
            }
            let through = advance(store, behind, revision).await?;
            if rebuilds {
                state.must_rebuild.store(false, Ordering::Release);
            }
            state.indexed.store(through, Ordering::Relaxed);
            if through < revision {
                return Ok(true);
            }
            through
        }
    };
    if sweep.is_none() && state.has_removed.swap(false, Ordering::AcqRel) {
        *sweep = Some(TaskKey(0));
    }
    if let Some(after) = *sweep {
        *sweep = sweep_page(store, indexed, after).await?;
    }
    Ok(sweep.is_some())
}

/// Adds what the next commits have changed. Returns the revision that the index is complete up to then.
async fn advance(store: &dyn Store, indexed: Option<u64>, revision: u64) -> Result<u64, Error> {
    let page = store.changed_texts(indexed.unwrap_or(0), PAGE).await?;
    let mut through = match page.last {
        Some(last) if page.more => last,
        // What was committed before the page was read is in it.
        last => last.unwrap_or(0).max(revision),
    };
    let (revisions, tasks): (Vec<_>, Vec<_>) = page.tasks.into_iter().unzip();
    let indexed_of = |task: &Task, texts: Texts| {
        let texts = [&texts.title, &texts.prompt, &texts.result, &texts.failure];
        IndexedTask::new(task.key, &task.namespace, texts.map(String::as_str))
    };
    let tasks = with_texts(store, tasks, indexed_of).await?;
    if let Some(next) = revisions.get(tasks.len()) {
        through = next.saturating_sub(1);
    }
    let update = IndexUpdate { after: indexed, through, tasks, removed: Vec::new() };
    if store.update_index(update).await? { Ok(through) } else { Err(moved()) }
}

/// Removes tasks from the index that the store does not have any more, among those of a page. Returns the last one of the page; none at
/// the end.
async fn sweep_page(store: &dyn Store, indexed: u64, after: TaskKey) -> Result<Option<TaskKey>, Error> {
    let keys = store.indexed_keys(after, SWEEP_PAGE).await?;
    let last = keys.last().copied();
    let filter = Filter { keys: Some(keys.clone()), limit: keys.len() + 1, ..Filter::default() };
    let left: BTreeSet<_> = store.list(filter).await?.tasks.into_iter().map(|task| task.key).collect();
    let removed: Vec<_> = keys.into_iter().filter(|key| !left.contains(key)).collect();
    if !removed.is_empty() {
        let update = IndexUpdate { after: Some(indexed), through: indexed, tasks: Vec::new(), removed };
        if !store.update_index(update).await? {
            return Err(moved());
        }
    }
    Ok(last)
}

fn moved() -> Error {
    Error::Unavailable {
        message: "another control plane has changed the search index".to_owned(),
        hint: "stop the control plane that should not run",
    }
}

#[cfg(test)]
mod tests;
