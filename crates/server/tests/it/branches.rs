//! Branches that a worker names for a task: the token of one worker does not claim those of other tasks.

use anyhow::Result;
use rota_proto::v1::{self, Artifact, ArtifactList, Changes, Checkpoint, FailureClass, TaskState};
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{Assign, KeepArtifactsRequest, Result as WorkerResult, result};
use rota_testkit::client::reason;
use rota_testkit::raw::{RawWorker, hello};
use rota_testkit::{Backend, Cluster, tasks};
use sha2::{Digest, Sha256};
use tonic::Status;

const AGENT: &str = "echo";
const WORKER: &str = "one";

async fn start() -> Result<(Cluster, RawWorker)> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), AGENT, tasks::script([]), &[]).await?;
    let worker = RawWorker::join(cluster.client(), hello(AGENT, WORKER, 1)).await?;
    Ok((cluster, worker))
}

fn own(task: &v1::Task) -> String {
    format!("rota/{}", task.uid)
}

/// Creates a task that fails with its first attempt, if at all.
async fn create(cluster: &Cluster, change: impl FnOnce(&mut v1::TaskSpec)) -> Result<v1::Task> {
    let mut task = tasks::task(AGENT);
    let spec = task.spec.get_or_insert_default();
    spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    change(spec);
    tasks::create(cluster.client(), task).await
}

/// Keeps a checkpoint whose changes are of a branch.
async fn keep(cluster: &Cluster, assign: &Assign, branch: &str) -> Result<(), Status> {
    // Of no content, so that nothing has to be stored.
    let conversation = Artifact {
        name: "checkpoint/c.jsonl".to_owned(),
        sha256: hex::encode(Sha256::digest("")),
        ..Artifact::default()
    };
    let changes = Changes {
        base_commit: "0".repeat(40),
        commit: "1".repeat(40),
        branch: branch.to_owned(),
        pushed: true,
        ..Changes::default()
    };
    let list = ArtifactList {
        artifacts: vec![conversation],
        changes: Some(changes),
        checkpoint: Some(Checkpoint { conversation: "c".to_owned(), ..Checkpoint::default() }),
        ..ArtifactList::default()
    };
    let request = KeepArtifactsRequest {
        namespace: "default".to_owned(),
        worker: WORKER.to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        artifacts: Some(list),
    };
    cluster.client().workers().keep_artifacts(request).await.map(drop)
}

async fn refused(cluster: &Cluster, assign: &Assign, branch: &str) {
    let status = keep(cluster, assign, branch).await.unwrap_err();
    assert_eq!(reason(&status).as_deref(), Some("INVALID_FIELD"), "{branch}: {status:?}");
    assert!(
        status.message().starts_with("artifacts.changes: must have the branch of the task"),
        "{status:?}"
    );
}

/// Ends an attempt with a success that was delivered to a branch. Returns the status of its task.
async fn deliver(
    cluster: &Cluster,
    worker: &mut RawWorker,
    assign: &Assign,
    branch: &str,
) -> Result<v1::TaskStatus> {
    let delivery = v1::Delivery { branch: branch.to_owned(), ..Default::default() };
    let done = v1::TaskResult { delivery: Some(delivery), ..Default::default() };
    worker.send(Kind::Result(Box::new(WorkerResult {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        kind: Some(result::Kind::Succeeded(done)),
        ..WorkerResult::default()
    })));
    assert!(worker.result_ack().await?);
    let name = format!("namespaces/default/tasks/{}", assign.task_id);
    Ok(*tasks::ended(cluster.client(), &name).await?.status.unwrap_or_default())
}

#[tokio::test]
async fn branches_of_other_tasks_are_refused() -> Result<()> {
    let (cluster, mut worker) = start().await?;
    let victim = create(&cluster, |_| ()).await?;
    let first = worker.take().await?;
    keep(&cluster, &first, &own(&victim)).await?;
    let status = deliver(&cluster, &mut worker, &first, &own(&victim)).await?;
    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");

    let thief = create(&cluster, |_| ()).await?;
    let second = worker.take().await?;
    assert_eq!(second.task_id, thief.uid);
    for branch in [&own(&victim), "rota/other", &format!("{}0", own(&thief))] {
        refused(&cluster, &second, branch).await;
    }
    let kept = cluster.client().fetch_artifacts(&thief.name).await?.attempts;
    assert!(kept.is_empty(), "{kept:?}");
    let status = deliver(&cluster, &mut worker, &second, &own(&victim)).await?;
    let failure = status.failure.unwrap_or_default();
    assert_eq!((status.state, failure.class()), (TaskState::Failed.into(), FailureClass::Protocol));
    assert!(failure.message.contains(&own(&victim)) && status.result.is_none(), "{failure:?}");
    Ok(())
}

#[tokio::test]
async fn undelivered_results_name_no_other_branch() -> Result<()> {
    let (cluster, mut worker) = start().await?;
    let task = create(&cluster, |_| ()).await?;
    let assign = worker.take().await?;
    let delivery = v1::Delivery { branch: "rota/other".to_owned(), ..Default::default() };
    let done = v1::TaskResult { delivery: Some(delivery), ..Default::default() };
    let failure = v1::Failure { class: FailureClass::Delivery.into(), ..Default::default() };
    worker.send(Kind::Result(Box::new(WorkerResult {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        kind: Some(result::Kind::Failed(failure)),
        undelivered: Some(done),
        ..WorkerResult::default()
    })));
    assert!(worker.result_ack().await?);
    let status = tasks::ended(cluster.client(), &task.name).await?.status.unwrap_or_default();
    assert_eq!(status.failure.unwrap_or_default().class(), FailureClass::Protocol);
    Ok(())
}

/// So that their request stays the same.
#[tokio::test]
async fn continued_work_keeps_its_branch() -> Result<()> {
    let (cluster, mut worker) = start().await?;
    let first = create(&cluster, |spec| "talk".clone_into(&mut spec.thread)).await?;
    let branch = own(&first);
    let assign = worker.take().await?;
    keep(&cluster, &assign, &branch).await?;
    deliver(&cluster, &mut worker, &assign, &branch).await?;

    let of_thread = create(&cluster, |spec| "talk".clone_into(&mut spec.thread)).await?;
    let continued = create(&cluster, |spec| spec.continue_from.clone_from(&first.uid)).await?;
    let fork = create(&cluster, |spec| {
        spec.continue_from.clone_from(&first.uid);
        spec.fork = true;
    })
    .await?;
    for task in [&of_thread, &continued] {
        let assign = worker.take().await?;
        assert_eq!(assign.task_id, task.uid);
        refused(&cluster, &assign, &own(&fork)).await;
        keep(&cluster, &assign, &branch).await?;
        let status = deliver(&cluster, &mut worker, &assign, &branch).await?;
        assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    }
    // It has a branch of its own.
    let assign = worker.take().await?;
    assert_eq!(assign.task_id, fork.uid);
    refused(&cluster, &assign, &branch).await;
    keep(&cluster, &assign, &own(&fork)).await?;
    let status = deliver(&cluster, &mut worker, &assign, &branch).await?;
    assert_eq!(status.failure.unwrap_or_default().class(), FailureClass::Protocol);
    Ok(())
}
