//! Results of the children of a task, which its later attempts and a task that continues it are given.

use anyhow::{Context, Result};
use rota_proto::v1;
use rota_proto::worker::v1::FetchPreviousResultRequest;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};
use tonic::Code;

/// More than an assignment carries.
const LARGE: usize = 256 << 10;

fn failure(message: &str) -> v1::Failure {
    let class = v1::FailureClass::Agent.into();
    v1::Failure { class, message: message.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn children_results_reach_later_attempts_and_continuations() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let shell = "touch $ROTA_CHECKPOINT/one; cut -c 1-200 $ROTA_CONTEXT/previous_results.json".to_owned();
    let command = v1::CommandRuntime { shell, ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(client, "gather", runtime, &[]).await?;
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut hand = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let mut first = RawWorker::join(client, raw::hello("gather", "first", 1)).await?;
    let mut task = tasks::task("gather");
    task.spec.get_or_insert_default().retry = Some(v1::RetryPolicy {
        max_attempts: 5,
        initial_backoff: Some(tasks::millis(1)),
        ..Default::default()
    });
    let parent = tasks::create(client, task).await?;
    let attempt = first.take().await?;
    assert!(attempt.previous.is_empty());
    let mut children = Vec::new();
    for text in ["from the first child".to_owned(), "x".repeat(LARGE)] {
        let mut child = tasks::task("echo");
        child.spec.get_or_insert_default().parent_task = parent.uid.clone();
        children.push(tasks::create(client, child).await?.uid);
        let assign = hand.take().await?;
        hand.succeed(&assign, 0, &text);
        assert!(hand.result_ack().await?);
    }
    let stranger = tasks::create(client, tasks::task("echo")).await?.uid;
    first.fail(&attempt, failure("again"));
    assert!(first.result_ack().await?);
    let again = first.take().await?;
    let given: Vec<_> = again.previous.iter().map(|one| (one.task_id.clone(), one.omitted)).collect();
    assert_eq!(given, [(children[0].clone(), false), (children[1].clone(), true)]);
    let fetch = async |previous_task_id: &str| {
        let request = FetchPreviousResultRequest {
            namespace: "default".to_owned(),
            worker: "first".to_owned(),
            task_id: again.task_id.clone(),
            fence: again.fence,
            previous_task_id: previous_task_id.to_owned(),
        };
        client.workers().fetch_previous_result(request).await
    };
    let large = fetch(&children[1]).await?.into_inner().result.context("no result")?;
    assert_eq!(large.text.len(), LARGE);
    assert_eq!(fetch(&stranger).await.unwrap_err().code(), Code::NotFound);
    // A real worker writes what it fetches to the file of the attempt.
    first.fail(&again, failure("again"));
    assert!(first.result_ack().await?);
    first.close().await;
    let _worker = cluster.worker("gather", "real", 1)?;
    let mut continuing = tasks::task("gather");
    continuing.spec.get_or_insert_default().continue_from = parent.uid.clone();
    for create in [None, Some(continuing)] {
        let name = match create {
            None => parent.name.clone(),
            Some(task) => tasks::create(client, task).await?.name,
        };
        let status = tasks::ended(client, &name).await?.status.context("no status")?;
        let text = status.result.as_ref().context("no result")?.text.clone();
        assert_eq!(status.state(), v1::TaskState::Succeeded, "{status:?}");
        assert!(text.contains("from the first child") && text.contains(&children[1]), "{text}");
    }
    Ok(())
}
