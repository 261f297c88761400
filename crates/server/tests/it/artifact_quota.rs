//! Quota of artifacts: what does not fit is refused before anything of it is sent, and seen.

use anyhow::{Context, Result};
use rota_proto::v1::{self, FindMissingPartsRequest, ListAlertsRequest, event::Kind as Event};
use rota_testkit::client::reason;
use rota_testkit::raw::{RawWorker, hello};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use sha2::{Digest, Sha256};
use tonic::Status;

const NAMESPACE: &str = "namespaces/default";
/// More than seven eighths of a quota of 100 bytes, and nothing to compress.
const NEARLY_ALL: &str =
    "0b1n7xQ9zKfJ3mWc8Rt5LpY2vHsD6gAeUoXi4TqNwMjBkZyVrSuPlFhGdCaEOIx0Q7z9K2m5W8c1R4t6L3pYvHsDgAe";

async fn with_quota(bytes: u64) -> Result<Cluster> {
    let setup = Setup { artifacts_quota: bytes, http: true, ..Setup::new(Backend::Memory) };
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
