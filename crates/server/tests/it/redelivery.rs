//! Retries of tasks whose delivery failed: the work is delivered, and not done again.

use anyhow::{Context, Result};
use rota_proto::v1::{self, Artifact, ArtifactList, Changes, FailureClass, TaskState, UploadPartsRequest};
use rota_proto::worker::v1::{FetchCheckpointRequest, KeepArtifactsRequest};
use rota_testkit::raw::{RawWorker, hello};
use rota_testkit::{Backend, Cluster, tasks};
use sha2::{Digest, Sha256};

const PART: &str = "the bundle";

/// A worker that has done the work of a task and kept it, and could not deliver it.
struct Undelivered {
    cluster: Cluster,
    worker: RawWorker,
    task: v1::Task,
}

async fn undelivered() -> Result<Undelivered> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut hello = hello("echo", "one", 1);
    hello.delivers = true;
    let mut worker = RawWorker::join(client, hello).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let part = UploadPartsRequest { parent: "namespaces/default".to_owned(), data: PART.into() };
    client.artifact_service().upload_parts(tokio_stream::iter([part])).await?;
    let digest = Sha256::digest(PART);
    let bundle = Artifact {
        name: "git/changes.bundle".to_owned(),
        size: i64::try_from(PART.len())?,
        sha256: hex::encode(digest),
        parts: vec![digest.to_vec()],
        executable: false,
    };
    let changes = Changes {
        base_commit: "0".repeat(40),
        commit: "1".repeat(40),
        branch: format!("rota/{}", task.uid),
        bundle: bundle.name.clone(),
        pushed: true,
        ..Changes::default()
    };
    let list = ArtifactList { artifacts: vec![bundle], changes: Some(changes), ..ArtifactList::default() };
    let request = KeepArtifactsRequest {
        namespace: "default".to_owned(),
        worker: "one".to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        artifacts: Some(list),
    };
    client.workers().keep_artifacts(request).await?;
    let class = FailureClass::Delivery.into();
    worker.fail(
        &assign,
        v1::Failure { class, message: "the host refuses it".to_owned(), ..Default::default() },
    );
    let status = tasks::ended(client, &task.name).await?.status.context("no status")?;
    assert_eq!((status.state(), status.attempt), (TaskState::Failed, 1));
    Ok(Undelivered { cluster, worker, task })
}

#[tokio::test]
async fn retry_of_a_delivery_only_delivers() -> Result<()> {
    let Undelivered { cluster, mut worker, task } = undelivered().await?;
    let client = cluster.client();
    let again =
        client.retry_task(v1::RetryTaskRequest { name: task.name.clone(), ..Default::default() }).await?;
    let assign = worker.take().await?;
    assert_eq!((&assign.task_id, assign.attempt), (&again.uid, 2));
    assert!(assign.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.deliver), "{assign:?}");
    // Also once the first task was removed.
    assert_eq!(client.prune(v1::PruneRequest { task: task.name, ..Default::default() }).await?.removed, 1);
    let request = FetchCheckpointRequest {
        namespace: "default".to_owned(),
        worker: "one".to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
    };
    let found = client.workers().fetch_checkpoint(request).await?.into_inner();
    let changes = found.undelivered.and_then(|work| work.artifacts?.changes).context("no work")?;
    assert_eq!(
        (changes.branch, changes.pushed),
        (format!("rota/{}", again.uid), false),
        "it has its own branch"
    );
    worker.succeed(&assign, 0, "delivered");
    let status = tasks::ended(client, &again.name).await?.status.context("no status")?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2));
    Ok(())
}

#[tokio::test]
async fn retry_from_scratch_works_again() -> Result<()> {
    let Undelivered { cluster, mut worker, task } = undelivered().await?;
    let request = v1::RetryTaskRequest { name: task.name, from_scratch: true, ..Default::default() };
    let again = cluster.client().retry_task(request).await?;
    let assign = worker.take().await?;
    assert_eq!((&assign.task_id, assign.attempt), (&again.uid, 1));
    assert!(assign.checkpoints.is_none_or(|checkpoints| !checkpoints.deliver));
    Ok(())
}

#[tokio::test]
async fn work_that_is_lost_is_not_retried_silently() -> Result<()> {
    let Undelivered { cluster, worker: _worker, task } = undelivered().await?;
    let part = hex::encode(Sha256::digest(PART));
    for entry in std::fs::read_dir(cluster.folder().join("artifacts"))? {
        let _ = std::fs::remove_file(entry?.path().join("default").join(&part[..2]).join(&part));
    }
    let request = v1::RetryTaskRequest { name: task.name, ..Default::default() };
    let refused = cluster.client().retry_task(request).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("ARTIFACT_NOT_STORED"));
    assert!(refused.to_string().contains("cannot be delivered"), "{refused}");
    Ok(())
}
