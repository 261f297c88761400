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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prometheus_client::metrics::counter::Counter;
    use prost::Message;
    use rota_core::workflow::{Command, Kind, Step, Workflow};
    use rota_core::{Namespace, Timestamp, WorkflowId};
    use rota_proto::v1::{Artifact, ArtifactList};
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;
    use rota_store::{Action, CreateWorkflow, NewStep, Reply, WorkflowCommand};

    use super::*;
    use crate::store_client::StoreClient;

    /// A workflow that has taken a list of files over, and no task with it.
    #[tokio::test]
    async fn files_of_a_rerun_stay_as_long_as_it() {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, std::sync::Arc::new(|| Timestamp(1))).unwrap();
        let store = StoreClient::new(std::sync::Arc::new(store), Counter::default());
        let folder = tempfile::tempdir().unwrap();
        let parts = rota_artifacts::Parts::in_folder(folder.path()).unwrap();
        let artifacts = Artifacts::new(parts, store.clone(), 0);
        let (namespace, id) = (Namespace::new("n").unwrap(), WorkflowId(uuid::Uuid::from_u128(1)));
        for content in ["kept", "left"] {
            artifacts.put(&namespace, content.into()).await.unwrap();
        }
        let kept = [Digest::of(b"kept")];
        let step =
            NewStep { step: Step::new("a".to_owned(), Kind::Task), spec: Bytes::new(), needs: Vec::new() };
        let workflow = Workflow::new(id, namespace.clone());
        let (spec, key, foreign_id) = (Bytes::new(), None, false);
        let create = CreateWorkflow { workflow, spec, steps: vec![step], key, foreign_id, files: None };
        let replies = store.apply(vec![WorkflowCommand::Create(Box::new(create)).into()]).await.unwrap();
        let Some(Ok(Reply::Workflow { workflow, .. })) = replies.into_iter().next() else { panic!() };
        let parts = kept.iter().map(|digest| digest.as_bytes().to_vec()).collect();
        let list =
            ArtifactList { artifacts: vec![Artifact { parts, ..Artifact::default() }], ..Default::default() };
        let action = Action::Reuse {
            round: 1,
            total: 1,
            inputs: String::new(),
            results: Some(Bytes::from_static(b"[1]")),
            lists: vec![(0, list.encode_to_vec().into())],
        };
        let reuse = WorkflowCommand::Drive { workflow: workflow.key, step: 0, action: Box::new(action) };
        assert!(store.apply(vec![reuse.into()]).await.unwrap()[0].is_ok());
        assert_eq!(artifacts.sweep(Duration::ZERO).await, Ok(1));
        assert_eq!(artifacts.missing(&namespace, &kept).await.unwrap().0, []);
        let delete = WorkflowCommand::Apply { namespace: namespace.clone(), id, command: Command::Delete };
        assert!(store.apply(vec![delete.into()]).await.unwrap()[0].is_ok());
        // Its rows are removed in parts, each of which a commit continues.
        for _ in 0..10 {
            store.apply(Vec::new()).await.unwrap();
        }
        assert!(store.reads().snapshot().await.unwrap().follow_ups.is_empty());
        assert_eq!(artifacts.sweep(Duration::ZERO).await, Ok(1));
        assert_eq!(artifacts.missing(&namespace, &kept).await.unwrap().0, kept);
    }
}
