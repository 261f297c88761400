//! Quota of artifacts: what does not fit is refused before anything of it is sent, and seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context, Result};
use rota_proto::v1::{self, FindMissingPartsRequest, ListAlertsRequest, event::Kind as Event};
use rota_testkit::client::{reason, upload_bytes};
use rota_testkit::raw::{RawWorker, hello};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use sha2::{Digest, Sha256};
use tonic::Status;

const NAMESPACE: &str = "namespaces/default";
/// More than seven eighths of a quota of 100 bytes, and nothing to compress.
const NEARLY_ALL: &str =
    "0b1n7xQ9zKfJ3mWc8Rt5LpY2vHsD6gAeUoXi4TqNwMjBkZyVrSuPlFhGdCaEOIx0Q7z9K2m5W8c1R4t6L3pYvHsDgAe";

async fn with_quota(bytes: u64) -> Result<Cluster> {
    with_clock(bytes, Arc::default()).await
}

async fn with_clock(bytes: u64, skew: Arc<AtomicI64>) -> Result<Cluster> {
    let setup = Setup { artifacts_quota: bytes, http: true, skew, ..Setup::new(Backend::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    Ok(cluster)
}

/// Asks for room for parts of these contents, after others of an upload.
async fn ask(cluster: &Cluster, contents: &[&str], earlier: i64) -> Result<usize, Status> {
    let request = FindMissingPartsRequest {
        parent: NAMESPACE.to_owned(),
        digests: contents.iter().map(|content| Sha256::digest(content).to_vec()).collect(),
        sizes: contents.iter().map(|content| u32::try_from(content.len()).unwrap()).collect(),
        earlier_bytes: earlier,
    };
    Ok(cluster.client().artifact_service().find_missing_parts(request).await?.into_inner().digests.len())
}

async fn upload(cluster: &Cluster, content: &'static str) -> Result<(), Status> {
    let part = v1::UploadPartsRequest { parent: NAMESPACE.to_owned(), data: content.into() };
    cluster.client().artifact_service().upload_parts(tokio_stream::iter([part])).await.map(drop)
}

#[tokio::test]
async fn declared_uploads_must_fit() -> Result<()> {
    let cluster = with_quota(100).await?;
    let large = "x".repeat(60);
    assert_eq!(ask(&cluster, &["a", &large], 0).await?, 2);
    for (contents, earlier) in [(vec![&*large, "b", &*"y".repeat(60)], 0), (vec!["a", "b"], 99)] {
        let refused = ask(&cluster, &contents, earlier).await.unwrap_err();
        assert_eq!(reason(&refused).as_deref(), Some("ARTIFACTS_FULL"), "{contents:?}");
    }
    upload(&cluster, "a").await?;
    assert_eq!(ask(&cluster, &["a"], 100).await?, 0, "nothing is to be added");
    for request in [
        FindMissingPartsRequest { digests: vec![vec![0; 32]; 2], sizes: vec![1], ..Default::default() },
        FindMissingPartsRequest { digests: vec![vec![0; 32]], sizes: vec![0], ..Default::default() },
        FindMissingPartsRequest {
            digests: vec![vec![0; 32]],
            sizes: vec![(1 << 20) + 1],
            ..Default::default()
        },
        FindMissingPartsRequest { earlier_bytes: -1, ..Default::default() },
        FindMissingPartsRequest { earlier_bytes: i64::MAX, ..Default::default() },
    ] {
        let request = FindMissingPartsRequest { parent: NAMESPACE.to_owned(), ..request };
        let refused = cluster.client().artifact_service().find_missing_parts(request).await.unwrap_err();
        assert_eq!(reason(&refused).as_deref(), Some("INVALID_FIELD"));
    }
    Ok(())
}

/// What has no room is named in the explanation of a task that waits for it, among the alerts, and by a metric, while it waits.
#[tokio::test]
async fn full_namespaces_are_seen() -> Result<()> {
    let cluster = with_quota(100).await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, hello("echo", "one", 2)).await?;
    let storing = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let ended = Some(Event::WorkEnded(v1::WorkEnded::default()));
    worker.report(&assign, 1, vec![v1::Event { kind: ended, ..Default::default() }]);
    tasks::eventually("the end of the work", async || {
        Ok(tasks::log(client, &storing.name)
            .await?
            .iter()
            .any(|event| matches!(event.kind, Some(Event::WorkEnded(_)))))
    })
    .await?;
    let running = tasks::create(client, tasks::task("echo")).await?;
    worker.take().await?;
    let causes = async |name: &str| {
        let explained = client.explain_task(v1::ExplainTaskRequest { name: name.to_owned() }).await?;
        anyhow::Ok(explained.causes.into_iter().map(|cause| cause.code).collect::<Vec<_>>())
    };
    let full = "artifacts_full".to_owned();
    assert!(!causes(&storing.name).await?.contains(&full));
    ask(&cluster, &[&"x".repeat(101)], 0).await.unwrap_err();
    assert!(!causes(&storing.name).await?.contains(&full), "there is room for others");
    upload(&cluster, NEARLY_ALL).await?;
    ask(&cluster, &[&"x".repeat(101)], 0).await.unwrap_err();
    assert_eq!(causes(&storing.name).await?.first(), Some(&full));
    assert!(!causes(&running.name).await?.contains(&full), "it stores nothing yet");
    let alerts = async |namespace: &str| {
        let parent = format!("namespaces/{namespace}");
        anyhow::Ok(client.list_alerts(ListAlertsRequest { parent }).await?.alerts)
    };
    let alert = alerts("default").await?.pop().context("no alert")?;
    assert_eq!((alert.code, &*alert.subject), (full, NAMESPACE));
    assert_eq!(alerts("other").await?, []);
    let addr = cluster.http_addr().context("it does not listen")?;
    let page = reqwest::get(format!("http://{addr}/metrics")).await?.text().await?;
    assert!(page.contains("rota_artifacts_full{namespace=\"default\"} 1"), "{page}");
    Ok(())
}

/// Returns a task whose attempts follow each other immediately.
fn impatient() -> v1::Task {
    let mut task = tasks::task("echo");
    let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(1)), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    task
}

/// Returns how a task has failed so far.
async fn failures(cluster: &Cluster, name: &str) -> Result<Vec<v1::Failure>> {
    let log = tasks::log(cluster.client(), name).await?;
    let changes = log.into_iter().filter_map(|event| match event.kind {
        Some(Event::State(change)) => change.failure,
        _ => None,
    });
    Ok(changes.collect())
}

/// An attempt whose upload is larger than what is left is followed by none before there is room, although the namespace is not full.
#[tokio::test]
async fn refused_upload_is_worked_for_once() -> Result<()> {
    let skew = Arc::<AtomicI64>::default();
    let cluster = with_clock(100, Arc::clone(&skew)).await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, hello("echo", "one", 1)).await?;
    upload(&cluster, "a").await?;
    let refused = ask(&cluster, &[&"x".repeat(120)], 0).await.unwrap_err();
    let bytes = upload_bytes(&refused).context("the size is not named")?;
    assert_eq!(bytes, 120);
    let task = tasks::create(client, impatient()).await?;
    let assign = worker.take().await?;
    let no_room = |bytes| v1::Failure {
        class: v1::FailureClass::Source.into(),
        of_storage: true,
        upload_bytes: Some(bytes),
        ..Default::default()
    };
    worker.fail(&assign, no_room(i64::try_from(bytes)?));
    let until = async |count| {
        tasks::eventually(
            "another failure",
            async || Ok(failures(&cluster, &task.name).await?.len() == count),
        )
        .await
    };
    until(2).await?;
    let failure = failures(&cluster, &task.name).await?.remove(1);
    assert!(failure.message.contains("no attempt is started") && failure.of_storage, "{failure:?}");
    assert!(failure.hint.contains("rota admin prune"), "{failure:?}");
    assert_eq!(failure.upload_bytes, Some(120));
    let smaller = tasks::create(client, impatient()).await?;
    let assign = worker.take().await?;
    assert!(smaller.name.ends_with(&assign.task_id), "{assign:?}");
    worker.fail(&assign, no_room(60));
    let again = worker.take().await?;
    assert!(again.task_id == assign.task_id && again.fence > assign.fence, "there is room for it: {again:?}");
    worker.succeed(&again, 0, "done");
    tasks::ended(client, &smaller.name).await?;
    // Later, too, as long as there is no room.
    skew.store(2 * 3600 * 1_000_000, Ordering::Relaxed);
    let store = cluster.store().context("no store")?;
    store.apply(vec![rota_store::Command::tick(10)]).await?;
    until(3).await?;
    Ok(())
}

/// Files that an attempt is given need no room.
#[tokio::test]
async fn failed_download_waits_for_no_room() -> Result<()> {
    let cluster = with_quota(100).await?;
    let client = cluster.client();
    upload(&cluster, NEARLY_ALL).await?;
    upload(&cluster, "b").await.expect_err("the namespace is full");
    let mut worker = RawWorker::join(client, hello("echo", "one", 1)).await?;
    let task = tasks::create(client, impatient()).await?;
    let assign = worker.take().await?;
    let class = v1::FailureClass::Source.into();
    let failure = v1::Failure { class, of_storage: true, upload_bytes: Some(0), ..Default::default() };
    worker.fail(&assign, failure.clone());
    let again = worker.take().await?;
    assert!(again.task_id == assign.task_id && again.fence > assign.fence, "{again:?}");
    worker.succeed(&again, 0, "done");
    assert_eq!(failures(&cluster, &task.name).await?.len(), 1);
    tasks::ended(client, &task.name).await?;
    // Earlier workers do not name what they have uploaded.
    let task = tasks::create(client, impatient()).await?;
    let assign = worker.take().await?;
    worker.fail(&assign, v1::Failure { upload_bytes: None, ..failure });
    let until = async || Ok(failures(&cluster, &task.name).await?.len() == 2);
    tasks::eventually("a second failure", until).await?;
    let failure = failures(&cluster, &task.name).await?.remove(1);
    assert!(failure.message.contains("no attempt is started"), "{failure:?}");
    assert_eq!((failure.of_storage, failure.upload_bytes), (true, None));
    Ok(())
}
