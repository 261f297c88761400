//! Background task that removes parts that no list refers to: of pruned tasks, replaced lists and abandoned uploads. At its start
//! it reports those that lists refer to in vain.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use rota_artifacts::{Digest, Error};
use rota_core::TaskKey;
use rota_proto::times::FREED_AFTER;
use rota_store::ArtifactsKey;
use rota_telemetry::background_tasks::TaskMonitor;
use rota_telemetry::clock;
use tokio_util::sync::CancellationToken;

use super::Artifacts;
use super::lists::{decode, digests};

/// The first is soon after the start: it also counts what each namespace uses.
const DELAY: Duration = Duration::from_secs(30);
/// Time after a failed one: until the next, the control plane counts as degraded.
const RETRY_INTERVAL: Duration = Duration::from_secs(300);
/// Age from which a part must belong to a list: uploads of a large file take a while.
const AGE: Duration = Duration::from_secs(3600);
/// Lists that are read together, of at most 512 KiB each.
const PAGE: usize = 16;

/// Looks for what is lost, then sweeps now and then, until `stop`.
pub(crate) async fn run(artifacts: Artifacts, stop: CancellationToken, monitor: TaskMonitor) {
    match stop.run_until_cancelled(artifacts.count_lost()).await {
        None | Some(Ok(0)) => {}
        Some(Ok(parts)) => tracing::warn!(
            parts,
            storage = artifacts.parts.location(),
            "contents of artifacts are lost: records name them, and the storage does not have them; restore it, too"
        ),
        Some(Err(error)) => tracing::warn!(%error, "failed to compare records with the storage of artifacts"),
    }
    let mut delay = DELAY;
    while stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_some() {
        delay = FREED_AFTER;
        let activation = monitor.activate();
        match stop.run_until_cancelled(artifacts.sweep(AGE)).await {
            Some(Ok(removed)) => {
                if removed > 0 {
                    tracing::info!(removed, "removed parts of artifacts that no task refers to");
                }
                activation.succeeded();
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "failed to remove parts of artifacts that no task refers to");
                activation.failed(&error);
                delay = RETRY_INTERVAL;
            }
            None => activation.succeeded(),
        }
    }
}

impl Artifacts {
    /// Returns how many parts lists refer to and the storage lacks: the store was restored from a backup, and the storage was not.
    async fn count_lost(&self) -> Result<usize, String> {
        // First: a part is stored before its list.
        let referenced = self.referenced().await?;
        let lost = self.parts.absent(referenced).await.map_err(|error| error.to_string())?;
        Ok(lost.len())
    }

    /// Removes what nothing refers to, and counts what is left. Returns how many parts were removed.
    pub(crate) async fn sweep(&self, age: Duration) -> Result<u64, String> {
        let until = clock::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let swept = self.parts.sweep(until, async { self.referenced().await.map_err(Failure) }).await;
        let swept = swept.map_err(|Failure(reason)| reason)?;
        *self.used.lock() = swept.bytes;
        Ok(swept.removed)
    }

    /// Returns every part that a list refers to. A list that cannot be decoded ends the sweep: what it refers to must stay.
    async fn referenced(&self) -> Result<HashSet<Digest>, String> {
        let mut from = ArtifactsKey { task: TaskKey(0), attempt: 0 };
        let to = ArtifactsKey { task: TaskKey(u64::MAX), attempt: u32::MAX };
        let mut referenced = HashSet::new();
        loop {
            let page = self.store.reads().artifacts(from..=to, PAGE).await;
            let page = page.map_err(|error| error.to_string())?;
            for row in &page {
                referenced.extend(digests(&decode(row)?.artifacts));
            }
            let Some((last, _)) = page.last() else { return Ok(referenced) };
            from = match last.attempt.checked_add(1) {
                Some(attempt) => ArtifactsKey { attempt, ..*last },
                None => ArtifactsKey { task: TaskKey(last.task.0 + 1), attempt: 0 },
            };
        }
    }
}

struct Failure(String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}
