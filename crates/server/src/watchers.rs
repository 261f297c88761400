//! Watchers of tasks: each is notified of changes after they are durable, and catches up from the store when it was too
//! slow. A slow watcher never delays the commits.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::TaskKey;
use rota_store::{Commit, TaskChange};
use tokio::sync::{broadcast, mpsc};

/// Changes that a watcher of one task may lag behind.
const MAX_LAG: usize = 64;
/// Commits that a watcher of many tasks may lag behind.
const MAX_COMMIT_LAG: usize = 1024;

pub(crate) struct Watchers {
    tasks: Mutex<HashMap<TaskKey, Vec<mpsc::Sender<TaskChange>>>>,
    commits: broadcast::Sender<Arc<Commit>>,
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self { tasks: Mutex::default(), commits: broadcast::channel(MAX_COMMIT_LAG).0 }
    }

    /// Watches one task. The channel closes when the watcher lags too far behind: it reads the store, then watches again.
    pub(crate) fn task(&self, key: TaskKey) -> mpsc::Receiver<TaskChange> {
        let (sender, receiver) = mpsc::channel(MAX_LAG);
        self.tasks.lock().entry(key).or_default().push(sender);
        receiver
    }

    /// Subscribes to every commit, in order.
    pub(crate) fn commits(&self) -> broadcast::Receiver<Arc<Commit>> {
        self.commits.subscribe()
    }

    /// Notifies the watchers of a commit.
    pub(crate) fn publish(&self, mut commit: Commit) {
        // What workers have received: secrets and payloads must not wait in memory for the slowest watcher.
        for change in &mut commit.tasks {
            change.dispatch = None;
        }
        {
            let mut tasks = self.tasks.lock();
            if !tasks.is_empty() {
                for change in &commit.tasks {
                    notify_one(&mut tasks, change);
                }
            }
        }
        if self.commits.receiver_count() > 0 {
            let _ = self.commits.send(Arc::new(commit));
        }
    }

    /// Removes watchers whose callers have hung up, of tasks that do not change.
    pub(crate) fn sweep(&self) {
        self.tasks.lock().retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.is_closed());
            !watchers.is_empty()
        });
    }
}

fn notify_one(tasks: &mut HashMap<TaskKey, Vec<mpsc::Sender<TaskChange>>>, change: &TaskChange) {
    let Some(watchers) = tasks.get_mut(&change.task.key) else { return };
    watchers.retain(|watcher| watcher.try_send(change.clone()).is_ok());
    if watchers.is_empty() {
        tasks.remove(&change.task.key);
    }
}
