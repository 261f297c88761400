//! Results of workers that check no schemas: the control plane does, before a success counts.

use anyhow::Result;
use rota_proto::v1::{self, FailureClass, TaskState};
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{Assign, Result as WorkerResult, result};
use rota_testkit::raw::{RawWorker, hello};
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};

const AGENT: &str = "foreign";

fn fields(value: Value) -> Option<pbjson_types::Struct> {
    serde_json::from_value(value).ok()
}

async fn create(cluster: &Cluster, attempts: i32) -> Result<v1::Task> {
    let mut task = tasks::task(AGENT);
    let spec = task.spec.get_or_insert_default();
    spec.retry = Some(v1::RetryPolicy {
        max_attempts: attempts,
        initial_backoff: Some(tasks::millis(1)),
        ..Default::default()
    });
    let schema =
        json!({"type": "object", "required": ["approved"], "properties": {"approved": {"type": "boolean"}}});
    spec.result_schema = fields(schema).map(Box::new);
    tasks::create(cluster.client(), task).await
}

fn done(data: Value) -> v1::TaskResult {
    v1::TaskResult { data: fields(data), ..Default::default() }
}

async fn end(
    worker: &mut RawWorker,
    assign: &Assign,
    kind: result::Kind,
    undelivered: Option<v1::TaskResult>,
) -> Result<()> {
    worker.send(Kind::Result(Box::new(WorkerResult {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        kind: Some(kind),
        undelivered,
        ..WorkerResult::default()
    })));
    assert!(worker.result_ack().await?);
    Ok(())
}

fn assert_unfit(status: &v1::TaskStatus) {
    let failure = status.failure.clone().unwrap_or_default();
    assert_eq!((status.state(), failure.class()), (TaskState::Failed, FailureClass::Agent), "{status:?}");
    assert!(failure.message.starts_with("the data of the result does not fit its schema: "), "{failure:?}");
    assert!(failure.hint.contains("result.json") && status.result.is_none(), "{status:?}");
}

#[tokio::test]
async fn foreign_results_must_fit_their_schema() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), AGENT, tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(cluster.client(), hello(AGENT, "one", 1)).await?;
    for wrong in [done(json!({"approved": "yes"})), done(json!({})), v1::TaskResult::default()] {
        let task = create(&cluster, 1).await?;
        let assign = worker.take().await?;
        end(&mut worker, &assign, result::Kind::Succeeded(wrong), None).await?;
        assert_unfit(&tasks::ended(cluster.client(), &task.name).await?.status.unwrap_or_default());
    }

    // The next attempt may do better.
    let task = create(&cluster, 2).await?;
    for data in [json!({"approved": 1}), json!({"approved": true})] {
        let assign = worker.take().await?;
        assert_eq!(assign.task_id, task.uid);
        end(&mut worker, &assign, result::Kind::Succeeded(done(data)), None).await?;
    }
    let status = tasks::ended(cluster.client(), &task.name).await?.status.unwrap_or_default();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{status:?}");
    Ok(())
}

#[tokio::test]
async fn undelivered_results_must_fit_their_schema() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), AGENT, tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(cluster.client(), hello(AGENT, "one", 1)).await?;
    let task = create(&cluster, 1).await?;
    let assign = worker.take().await?;
    let failure = v1::Failure { class: FailureClass::Delivery.into(), ..Default::default() };
    let left = Some(done(json!({"approved": "yes"})));
    end(&mut worker, &assign, result::Kind::Failed(failure), left).await?;
    assert_unfit(&tasks::ended(cluster.client(), &task.name).await?.status.unwrap_or_default());
    Ok(())
}
