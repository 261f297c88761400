//! Background task that removes parts that no list refers to: of pruned tasks, replaced lists and abandoned uploads. At its start
//! it reports those that lists refer to in vain.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use rota_artifacts::{Digest, Error, Until};
use rota_core::TaskKey;
use rota_proto::times::{FREED_AFTER, UPLOAD_DELAY};
use rota_proto::v1::ArtifactList;
use rota_store::ArtifactsKey;
use rota_telemetry::background_tasks::TaskMonitor;
use rota_telemetry::clock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Artifacts;
use super::full::Full;
use super::lists::{decode, digests};
use super::outage::Way;
use crate::clock::now;

/// The first is soon after the start: it also counts what each namespace uses.
const DELAY: Duration = Duration::from_secs(30);
/// Time after a failed one: until the next, the control plane counts as degraded.
const RETRY_INTERVAL: Duration = Duration::from_secs(300);
/// Age from which a part must belong to a list: uploads of a large file take a while.
const AGE: Duration = Duration::from_secs(3600);
/// The same in a namespace that has no room: uploads to it are refused, and what belongs to none was abandoned.
const AGE_IF_FULL: Duration = Duration::from_secs(600);
/// Shortest time between two sweeps, each of which lists the whole storage. Uploads that are refused are repeated as often.
const MIN_INTERVAL: Duration = UPLOAD_DELAY;
/// Lists that are read together, of at most 512 KiB each.
const PAGE: usize = 16;

/// Looks for what is lost, and sweeps now and then, until `stop`.
pub(crate) async fn run(artifacts: Artifacts, stop: CancellationToken, monitor: TaskMonitor) {
    report_lost(&artifacts, &stop).await;
    let mut delay = DELAY;
    while let Some(is_early) = stop.run_until_cancelled(due(&artifacts.full, delay)).await {
        delay = FREED_AFTER;
        let swept = stop.run_until_cancelled(artifacts.sweep(AGE)).await;
        // Only the outcome is reported: to list and remove the parts of a large storage takes longer than an activation may, and each
        // call has a limit of its own.
        let activation = monitor.activate();
        match swept {
            Some(Ok(removed)) => {
                if removed > 0 {
                    tracing::info!(removed, "removed parts of artifacts that no task refers to");
                }
                activation.succeeded();
                if !is_early {
                    report_lost(&artifacts, &stop).await;
                }
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

async fn report_lost(artifacts: &Artifacts, stop: &CancellationToken) {
    match stop.run_until_cancelled(artifacts.find_lost()).await {
        None | Some(Ok(0)) => {}
        Some(Ok(parts)) => tracing::warn!(
            parts,
            storage = artifacts.parts.location(),
            "contents of artifacts are lost: records name them, and the storage does not have them; restore it, too"
        ),
        Some(Err(error)) => tracing::warn!(%error, "failed to compare records with the storage of artifacts"),
    }
}

/// Waits for the next sweep, which is earlier if an upload is refused: it may make room. Returns whether it is.
async fn due(full: &Full, delay: Duration) -> bool {
    let early = async {
        sleep(delay.min(MIN_INTERVAL)).await;
        full.newly().await;
    };
    tokio::select! {
        () = sleep(delay) => false,
        () = early => true,
    }
}

impl Artifacts {
    /// Takes the folder of a local storage for the one that the lists are of, unless it cannot be. Sweeps try it again then.
    pub(crate) async fn recognize(&self) {
        self.recognize_by(self.referenced()).await;
    }

    async fn recognize_by(&self, referenced: impl Future<Output = Result<HashSet<Digest>, String>>) {
        let unread = |error| Failure(format!("failed to read which files it should have: {error}"));
        match self.parts.recognize(async { referenced.await.map_err(unread) }).await {
            Ok(()) => {
                if self.unrecognized.lock().take().is_some() {
                    tracing::info!(storage = self.parts.location(), "recognized the folder of artifacts");
                    self.outage.end(Way::In);
                }
            }
            Err(Failure(error)) => {
                tracing::error!(error, "artifacts are neither stored nor fetched");
                *self.unrecognized.lock() = Some(error);
                self.check_folder().await;
            }
        }
    }

    /// Reports an outage if a local storage has another folder.
    async fn check_folder(&self) {
        if let Err(error) = self.parts.check().await {
            self.outage.failed(&error, Way::In, now());
        }
    }

    /// Removes what nothing refers to, and counts what is left. Returns how many parts were removed.
    pub(crate) async fn sweep(&self, age: Duration) -> Result<u64, String> {
        let is_unrecognized = self.unrecognized.lock().is_some();
        if is_unrecognized {
            self.recognize().await;
        }
        let since = |age| clock::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let full = self.full.namespaces(now()).into_iter();
        let full = full.filter(|namespace| self.full(namespace, now()).is_some());
        let until =
            Until { all: since(age), of: full.map(|one| (one, since(age.min(AGE_IF_FULL)))).collect() };
        let referenced = async { self.referenced().await.map_err(Failure) };
        // A batch that writes nothing is answered to the owner of the records only.
        let confirm = || {
            let store = self.store.clone();
            async move {
                let confirmed = store.reads().apply(Vec::new()).await;
                confirmed.map(drop).map_err(|error| Failure(error.to_string()))
            }
        };
        let swept = self.parts.sweep(until, referenced, confirm).await;
        match swept {
            Ok(swept) => {
                *self.used.lock() = swept.bytes;
                Ok(swept.removed)
            }
            Err(Failure(reason)) => {
                // Otherwise parts that are stored again, or that others have removed, would count until a sweep succeeds.
                if let Ok(bytes) = self.parts.bytes().await {
                    *self.used.lock() = bytes;
                }
                self.check_folder().await;
                Err(reason)
            }
        }
    }

    /// Returns every part that a list refers to. A list that cannot be decoded ends the sweep: what it refers to must stay.
    pub(super) async fn referenced(&self) -> Result<HashSet<Digest>, String> {
        let mut referenced = HashSet::new();
        self.each_list(|_, list| referenced.extend(digests(&list.artifacts))).await?;
        Ok(referenced)
    }

    /// Calls a function with every list and its key.
    pub(super) async fn each_list(
        &self,
        mut pass: impl FnMut(ArtifactsKey, &ArtifactList),
    ) -> Result<(), String> {
        let mut from = ArtifactsKey { task: TaskKey(0), attempt: 0 };
        let to = ArtifactsKey { task: TaskKey(u64::MAX), attempt: u32::MAX };
        loop {
            let page = self.store.reads().artifacts(from..=to, PAGE).await;
            let page = page.map_err(|error| error.to_string())?;
            for row in &page {
                pass(row.0, &decode(row)?);
            }
            let Some((last, _)) = page.last() else { return Ok(()) };
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
    use rota_proto::v1::Artifact;
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;
    use rota_store::{Action, CreateWorkflow, NewStep, Reply, WorkflowCommand};
    use rota_telemetry::BackgroundTasks;
    use rota_telemetry::background_tasks::BackgroundTaskState;

    use super::*;
    use crate::store_client::StoreClient;

    fn artifacts(folder: &std::path::Path, quota: u64) -> Artifacts {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, std::sync::Arc::new(|| Timestamp(1))).unwrap();
        let store = StoreClient::new(
            std::sync::Arc::new(store),
            std::sync::Arc::new(|| Timestamp(1)),
            Counter::default(),
        );
        Artifacts::new(rota_artifacts::Parts::in_folder(folder).unwrap(), store, quota)
    }

    #[tokio::test(start_paused = true)]
    async fn refused_upload_makes_the_next_sweep_early() {
        let (full, start) = (Full::default(), tokio::time::Instant::now());
        due(&full, FREED_AFTER).await;
        assert_eq!(start.elapsed(), FREED_AFTER, "none was refused");
        full.refused("n", Timestamp(0));
        due(&full, FREED_AFTER).await;
        assert_eq!(start.elapsed(), FREED_AFTER + MIN_INTERVAL);
        full.refused("n", Timestamp(0));
        due(&full, DELAY).await;
        assert_eq!(start.elapsed(), FREED_AFTER + MIN_INTERVAL + DELAY);
    }

    /// A storage that does not answer: the sweep lasts for minutes.
    #[tokio::test(start_paused = true)]
    async fn long_sweep_does_not_count_as_stuck() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let settings = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_allow_http", "true"),
            ("aws_access_key_id", "id"),
            ("aws_secret_access_key", "key"),
            ("aws_region", "any"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let folder = tempfile::tempdir().unwrap();
        let mut artifacts = artifacts(folder.path(), 0);
        artifacts.parts = rota_artifacts::Parts::open("s3://bucket/parts", settings).unwrap();
        let tasks = BackgroundTasks::default();
        let (stop, monitor) = (CancellationToken::new(), tasks.register("artifacts", ""));
        let began = tokio::time::Instant::now();
        let sweeps = run(artifacts, stop.clone(), monitor);
        let observed = async {
            while tasks.statuses()[0].failed == 0 {
                assert_eq!(tasks.statuses()[0].state, BackgroundTaskState::Idle);
                sleep(Duration::from_secs(1)).await;
            }
            stop.cancel();
        };
        tokio::join!(sweeps, observed);
        assert!(began.elapsed() > DELAY + Duration::from_secs(60));
    }

    /// Uploads of two namespaces that nothing came of 20 minutes ago, one of which has no room.
    #[tokio::test]
    async fn abandoned_parts_of_full_namespaces_are_freed_sooner() {
        let folder = tempfile::tempdir().unwrap();
        let mut artifacts = artifacts(folder.path(), 1000);
        let [one, other] = ["one", "other"].map(|name| Namespace::new(name).unwrap());
        let (abandoned, begun) = ([Digest::of(b"abandoned upload")], [Digest::of(b"begun")]);
        artifacts.put(&one, "abandoned upload".into()).await.unwrap();
        artifacts.put(&other, "abandoned upload".into()).await.unwrap();
        let earlier = clock::now().checked_sub(2 * AGE_IF_FULL).unwrap();
        for namespace in [&one, &other] {
            let digest = abandoned[0].to_string();
            let part = folder.path().join(namespace.as_str()).join(&digest[..2]).join(digest);
            std::fs::File::options().write(true).open(part).unwrap().set_modified(earlier).unwrap();
        }
        artifacts.put(&one, "begun".into()).await.unwrap();
        assert_eq!(artifacts.sweep(AGE).await, Ok(0), "there was room");
        // What is declared concerns no other caller.
        assert!(artifacts.admit(&one, u64::MAX).is_err() && artifacts.causes(now()).is_empty());
        assert!(artifacts.check_room(&one, 0).is_ok());
        artifacts.quota = artifacts.used.lock()["one"];
        let refused = artifacts.admit(&one, 20).unwrap_err();
        assert!(refused.message.contains("that they may take"), "{refused:?}");
        assert_eq!(artifacts.causes(now())[0].subject, "namespaces/one");
        assert!(artifacts.check_room(&one, 0).is_err() && artifacts.check_room(&other, 0).is_ok());
        assert_eq!(artifacts.sweep(AGE).await, Ok(1));
        assert_eq!(artifacts.missing(&one, &abandoned).await.unwrap().0, abandoned);
        assert_eq!(artifacts.missing(&one, &begun).await.unwrap().0, []);
        assert_eq!(artifacts.missing(&other, &abandoned).await.unwrap().0, []);
        assert!(
            artifacts.admit(&one, 5).is_ok() && artifacts.causes(now()).is_empty(),
            "there is room again"
        );
    }

    /// An intact folder without a marker, of a store whose lists could not be read at the start.
    #[tokio::test]
    async fn folder_is_recognized_by_later_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let mut artifacts = artifacts(folder.path(), 0);
        artifacts.parts = artifacts.parts.of("store");
        let namespace = Namespace::new("n").unwrap();
        artifacts.recognize_by(async { Err("the list is damaged".to_owned()) }).await;
        let parts = [Digest::of(b"part")];
        assert!(artifacts.missing(&namespace, &parts).await.is_err());
        let cause = artifacts.outage(now()).unwrap();
        assert!(cause.message.ends_with("which files it should have: the list is damaged"), "{cause:?}");
        artifacts.sweep(AGE).await.unwrap();
        assert!(artifacts.outage(now()).is_none());
        assert_eq!(artifacts.missing(&namespace, &parts).await.unwrap().0, parts);
    }

    /// Removed parts count until the next sweep, which another owner of the location makes fail.
    #[tokio::test]
    async fn failed_sweeps_count_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut artifacts = artifacts(folder.path(), 40);
        let parts = rota_artifacts::Parts::in_folder(folder.path()).unwrap();
        let none = async { Ok::<_, Error>(HashSet::new()) };
        let owned = || async { Ok(()) };
        parts.clone().owned_by("other").sweep(clock::now(), none, owned).await.unwrap();
        artifacts.parts = parts.owned_by("one");
        let namespace = Namespace::new("n").unwrap();
        // The same one counts once.
        for _ in 0..3 {
            artifacts.put(&namespace, "the same part".into()).await.unwrap();
        }
        assert!(artifacts.admit(&namespace, 0).is_ok());
        for part in ["another part", "a third part"] {
            artifacts.put(&namespace, part.into()).await.unwrap();
        }
        assert!(artifacts.admit(&namespace, 0).is_err());
        let stored = folder.path().join("n");
        assert!(stored.is_dir());
        std::fs::remove_dir_all(stored).unwrap();
        assert!(artifacts.sweep(AGE).await.unwrap_err().contains("another control plane"));
        assert!(artifacts.admit(&namespace, 0).is_ok());
    }

    /// A workflow that has taken a list of files over, and no task with it.
    #[tokio::test]
    async fn files_of_a_rerun_stay_as_long_as_it() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = artifacts(folder.path(), 0);
        let store = artifacts.store.clone();
        let (namespace, id) = (Namespace::new("n").unwrap(), WorkflowId(uuid::Uuid::from_u128(1)));
        for content in ["kept", "left"] {
            artifacts.put(&namespace, content.into()).await.unwrap();
        }
        let kept = [Digest::of(b"kept")];
        let step = NewStep::new(Step::new("a".to_owned(), Kind::Task));
        let create = CreateWorkflow::new(Workflow::new(id, namespace.clone()), vec![step]);
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
