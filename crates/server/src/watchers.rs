//! Who follows tasks: each hears of changes after they are durable, and catches up from the store
//! when it was too slow. Nobody's slowness holds up the commits.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::TaskId;
use rota_store::{Commit, TaskChange};
use tokio::sync::{broadcast, mpsc, watch};

/// Changes that one watcher of one task may be behind.
const BEHIND: usize = 64;
/// Commits that watchers of many tasks may be behind.
const COMMITS_BEHIND: usize = 1024;

pub(crate) struct Watchers {
    tasks: Mutex<HashMap<TaskId, Vec<mpsc::Sender<TaskChange>>>>,
    commits: broadcast::Sender<Arc<Commit>>,
    /// Grows whenever the fleet or an agent changed.
    fleet: watch::Sender<u64>,
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self {
            tasks: Mutex::default(),
            commits: broadcast::channel(COMMITS_BEHIND).0,
            fleet: watch::channel(0).0,
        }
    }

    /// Follows one task. The channel ends when the follower is too far behind: it reads the store, then comes again.
    pub(crate) fn task(&self, id: TaskId) -> mpsc::Receiver<TaskChange> {
        let (sender, receiver) = mpsc::channel(BEHIND);
        self.tasks.lock().entry(id).or_default().push(sender);
        receiver
    }

    /// Follows all commits.
    pub(crate) fn commits(&self) -> broadcast::Receiver<Arc<Commit>> {
        self.commits.subscribe()
    }

    /// Follows the fleet: only that something changed.
    pub(crate) fn fleet(&self) -> watch::Receiver<u64> {
        self.fleet.subscribe()
    }

    pub(crate) fn fleet_changed(&self) {
        self.fleet.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Tells of a commit.
    pub(crate) fn tell(&self, commit: Commit) {
        {
            let mut tasks = self.tasks.lock();
            if !tasks.is_empty() {
                for change in &commit.tasks {
                    tell_one(&mut tasks, change);
                }
            }
        }
        if self.commits.receiver_count() > 0 {
            let _ = self.commits.send(Arc::new(commit));
        }
    }

    /// Forgets followers that have gone, of tasks at which nothing happens.
    pub(crate) fn sweep(&self) {
        self.tasks.lock().retain(|_, followers| {
            followers.retain(|follower| !follower.is_closed());
            !followers.is_empty()
        });
    }
}

fn tell_one(tasks: &mut HashMap<TaskId, Vec<mpsc::Sender<TaskChange>>>, change: &TaskChange) {
    let Some(followers) = tasks.get_mut(&change.task.id) else { return };
    followers.retain(|follower| follower.try_send(change.clone()).is_ok());
    if followers.is_empty() {
        tasks.remove(&change.task.id);
    }
}
