//! Whether the machine can run attempts: its state directory can be written, and disk and memory are left. A worker that is
//! not ready is assigned nothing, instead of failing one task after the other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rota_proto::worker::v1::{Assign, WorkerStatus};
use rota_telemetry::{OnExit, memory, spawn};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::supervise;
use crate::{files, git, workspace};

/// Default bytes of free disk without which nothing is accepted.
pub(crate) const MIN_FREE_DISK: u64 = 256 << 20;
/// Default bytes of free memory without which nothing is accepted.
pub(crate) const MIN_FREE_MEMORY: u64 = 64 << 20;
/// Time between two checks while nothing is assigned.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Time after which a file system counts as not answering.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Inodes that a workspace needs at least.
const MIN_FREE_INODES: u64 = 256;

/// Checks the machine, and holds what the last check found.
#[derive(Debug)]
pub(super) struct Readiness {
    state: PathBuf,
    min_free_disk: u64,
    min_free_memory: u64,
    status: watch::Sender<WorkerStatus>,
    /// Held while a check runs, also by one that was given up since its file system does not answer.
    checking: Arc<Semaphore>,
    /// Serves all that asked for a check before it ended.
    last: Arc<Mutex<Option<Checked>>>,
}

/// When a check ended, and what it found.
type Checked = (Instant, Option<Obstacle>);

/// What keeps a worker from running attempts.
#[derive(Debug, Clone, Default)]
struct Obstacle {
    /// For people; empty if there is none.
    reason: String,
    /// Whether it concerns this worker alone: another one on the same machine would be ready.
    alone: bool,
}

impl Obstacle {
    /// Returns that of the machine first: it concerns more workers.
    fn of(machine: Option<String>, stuck: Option<String>) -> Option<Self> {
        machine.map(Self::of_machine).or_else(|| {
            let reason = format!("processes of an attempt cannot be ended: {}", stuck?);
            Some(Self { reason, alone: true })
        })
    }

    fn of_machine(reason: String) -> Self {
        Self { reason, alone: false }
    }
}

impl Readiness {
    pub(super) fn new(state: &Path, min_free_disk: u64, min_free_memory: u64) -> Self {
        Self {
            state: state.to_owned(),
            min_free_disk,
            min_free_memory,
            status: watch::Sender::default(),
            checking: Arc::new(Semaphore::new(1)),
            last: Arc::default(),
        }
    }

    /// Returns the bytes of free disk without which nothing is accepted.
    pub(super) fn min_free_disk(&self) -> u64 {
        self.min_free_disk
    }

    /// Returns what the worker reports about its machine, now and whenever it changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<WorkerStatus> {
        self.status.subscribe()
    }

    /// Sets the version of the agent's program, unless it is unknown.
    pub(super) fn set_runtime_version(&self, version: &str) {
        self.status.send_if_modified(|status| {
            let changed = !version.is_empty() && status.runtime_version != version;
            if changed {
                version.clone_into(&mut status.runtime_version);
            }
            changed
        });
    }

    /// Sets the parts that the agent's program lacks.
    pub(super) fn set_runtime_missing(&self, missing: Vec<String>) {
        missing.iter().for_each(|what| tracing::warn!(what, "Claude Code lacks a part"));
        self.status.send_if_modified(|status| {
            let changed = status.runtime_missing != missing;
            status.runtime_missing = missing;
            changed
        });
    }

    /// Checks the machine. Returns what keeps it from running attempts; empty if nothing does.
    pub(super) async fn check(&self) -> String {
        let Obstacle { reason: found, alone } = self.obstacle().await.unwrap_or_default();
        self.status.send_if_modified(|status| {
            let known = &mut status.not_ready_reason;
            // The amounts change with every check.
            let changed = known.is_empty() != found.is_empty() || status.not_ready_alone != alone;
            if changed {
                found.clone_into(known);
                status.not_ready_alone = alone;
                match found.as_str() {
                    "" => tracing::info!("ready for tasks again"),
                    reason => tracing::warn!(reason, "not ready for tasks"),
                }
            }
            changed
        });
        found
    }

    /// Returns what keeps the machine from running this attempt; empty if nothing does.
    pub(super) async fn check_for(&self, assign: &Assign) -> String {
        let found = self.check().await;
        if found.is_empty() && git::source(assign).is_some() && !git::is_installed() {
            return "git is not on the worker's PATH".to_owned();
        }
        found
    }

    async fn obstacle(&self) -> Option<Obstacle> {
        let state = self.state.display();
        let stuck = || Some(Obstacle::of_machine(format!("the file system of {state} does not answer")));
        let began = Instant::now();
        let Ok(Ok(permit)) = timeout(CHECK_TIMEOUT, Arc::clone(&self.checking).acquire_owned()).await else {
            return stuck();
        };
        // Of many assignments that arrive together, one checks.
        if let Some((_, found)) = self.last.lock().clone().filter(|(ended, _)| *ended >= began) {
            return found;
        }
        let (path, min_disk, min_memory) = (self.state.clone(), self.min_free_disk, self.min_free_memory);
        let last = Arc::clone(&self.last);
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let of_machine = low_memory(min_memory).or_else(|| {
                unusable(&path, min_disk)?;
                // Perhaps what killed workers have left fills it.
                workspace::remove_unfinished(&path);
                unusable(&path, min_disk)
            });
            let found = Obstacle::of(of_machine, supervise::stuck());
            *last.lock() = Some((Instant::now(), found.clone()));
            found
        });
        match timeout(CHECK_TIMEOUT, check).await {
            Ok(found) => found
                .unwrap_or_else(|_| Some(Obstacle::of_machine("the check of the machine failed".to_owned()))),
            Err(_) => stuck(),
        }
    }

    /// Checks the machine again and again, as long as the worker exists.
    pub(super) fn watch(readiness: Weak<Self>) {
        spawn("readiness", OnExit::Done, async move {
            loop {
                sleep(CHECK_INTERVAL).await;
                let Some(readiness) = readiness.upgrade() else { return };
                readiness.check().await;
            }
        });
    }
}

/// Returns why the state directory cannot be used.
fn unusable(state: &Path, min_free: u64) -> Option<String> {
    let shown = state.display();
    let failed = |error: &dyn std::fmt::Display| Some(format!("failed to use {shown}: {error}"));
    let space = match nix::sys::statvfs::statvfs(state) {
        Ok(space) => space,
        Err(error) => return failed(&error),
    };
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    if free < min_free {
        let (free, min) = (free >> 20, min_free >> 20);
        return Some(format!("only {free} MiB of disk are free in {shown}, less than {min} MiB"));
    }
    // 0 on a file system without a table of inodes.
    if space.files() > 0 && space.files_available() < MIN_FREE_INODES {
        return Some(format!("only {} inodes are free in {shown}", space.files_available()));
    }
    // Quotas and read-only file systems do not show in the numbers.
    match files::probe(state) {
        Ok(()) => None,
        Err(error) => failed(&error),
    }
}

/// Returns why there is not enough memory.
fn low_memory(min_free: u64) -> Option<String> {
    let free = memory::free()?;
    let (free_mib, min) = (free.bytes >> 20, min_free >> 20);
    let whose = if free.is_limited { "worker's memory limit" } else { "machine's memory" };
    (free.bytes < min_free)
        .then(|| format!("only {free_mib} MiB of the {whose} are free, less than {min} MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let readiness = Readiness::new(&state, 1, 1);
        let mut changes = readiness.subscribe();
        assert_eq!(readiness.check().await, "");
        assert!(!changes.has_changed().unwrap());

        std::fs::remove_dir(&state).unwrap();
        let reason = readiness.check().await;
        assert!(reason.starts_with("failed to use ") && reason.contains("No such file"), "{reason}");
        assert_eq!(changes.borrow_and_update().not_ready_reason, reason);
        readiness.check().await;
        assert!(!changes.has_changed().unwrap());

        std::fs::create_dir(&state).unwrap();
        assert_eq!(readiness.check().await, "");
        assert_eq!(changes.borrow_and_update().not_ready_reason, "");
    }

    #[test]
    fn stuck_processes_concern_their_worker_alone() {
        let of = |machine: Option<&str>, stuck: Option<&str>| {
            let found = Obstacle::of(machine.map(str::to_owned), stuck.map(str::to_owned));
            found.map(|found| (found.reason, found.alone))
        };
        let stuck = "processes of an attempt cannot be ended: 17 (cc)".to_owned();
        assert_eq!(of(None, None), None);
        assert_eq!(of(None, Some("17 (cc)")), Some((stuck, true)));
        assert_eq!(of(Some("no disk"), Some("17 (cc)")), Some(("no disk".to_owned(), false)));
    }

    #[tokio::test]
    async fn checks_at_the_same_time_are_one() {
        let folder = tempfile::tempdir().unwrap();
        let readiness = Readiness::new(folder.path(), 1, 1);
        let running = Arc::clone(&readiness.checking).acquire_owned().await.unwrap();
        let mut waiting = std::pin::pin!(futures::future::join_all((0..64).map(|_| readiness.check())));
        assert!(futures::poll!(&mut waiting).is_pending());
        // Any further check would fail.
        folder.close().unwrap();
        *readiness.last.lock() = Some((Instant::now(), None));
        drop(running);
        assert!(waiting.await.iter().all(String::is_empty));
        assert!(!readiness.check().await.is_empty());
    }

    /// Nothing is assigned then, so that no attempt clears a cache.
    #[tokio::test]
    async fn full_disks_are_freed_of_what_killed_fetches_left() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("repositories/default/key");
        std::fs::create_dir_all(cache.join("objects/pack")).unwrap();
        let left = cache.join("objects/pack/tmp_pack_x");
        for path in
            [&left, &cache.join("rota"), &cache.with_extension("fetch"), &cache.with_extension("unfinished")]
        {
            std::fs::write(path, "").unwrap();
        }
        Readiness::new(folder.path(), 0, 0).check().await;
        assert!(left.exists(), "the disk is not full");
        Readiness::new(folder.path(), u64::MAX, 0).check().await;
        assert!(!left.exists() && cache.exists());
    }

    #[tokio::test]
    async fn lack_of_disk_and_memory_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let of = |disk, memory| Readiness::new(folder.path(), disk, memory);
        let disk = of(u64::MAX, 0).check().await;
        assert!(disk.contains("MiB of disk are free"), "{disk}");
        let memory = of(0, u64::MAX).check().await;
        assert!(memory.contains("memory") && memory.contains("are free, less than"), "{memory}");
    }
}
