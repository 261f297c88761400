//! Cancellation in every state of a task.

use anyhow::Result;
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, history, tasks};

async fn assert_cancelled(client: &rota_testkit::client::Client, name: &str) -> Result<v1::TaskStatus> {
    tasks::cancel(client, name).await?;
    // Cancelling again, before or after the end, has no further effect.
    tasks::cancel(client, name).await?;
    let status = tasks::ended(client, name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Cancelled, "{status:?}");
    let cancelled = tasks::cancel(client, name).await?;
    assert_eq!(cancelled.status.unwrap().state(), TaskState::Cancelled);
    let log = tasks::log(client, name).await?;
    let asked = log.iter().filter(|event| matches!(event.kind, Some(v1::event::Kind::Change(_)))).count();
    assert_eq!(asked, 1, "{log:?}");
    Ok(*status)
}

#[tokio::test]
async fn pending_task_is_cancelled() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    // PENDING, as the agent does not exist.
    let task = tasks::create(client, tasks::task("echo")).await?;
    assert_eq!(task.status.unwrap().state(), TaskState::Pending);
    assert_cancelled(client, &task.name).await?;
    // QUEUED, as no worker is connected.
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    assert_eq!(task.status.unwrap().state(), TaskState::Queued);
    assert_cancelled(client, &task.name).await?;
    // Created as cancelled.
    let mut born = tasks::task("echo");
    born.set_desired_state(v1::DesiredState::Cancelled);
    let task = tasks::create(client, born).await?;
    assert_eq!(task.status.unwrap().state(), TaskState::Cancelled);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn assigned_task_is_cancelled() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.next_assignment().await?;
    tasks::cancel(client, &task.name).await?;
    let cancel = loop {
        if let rota_proto::worker::v1::session_response::Kind::Cancel(cancel) = worker.receive().await? {
            break cancel;
        }
    };
    assert_eq!(cancel.task_id.as_str(), assign.task_id.as_str());
    assert_eq!(cancel.fence, assign.fence);
    // The attempt was faster: a cancelled task does not succeed nevertheless.
    worker.accept(&assign);
    worker.succeed(&assign, 0, "done");
    assert!(worker.result_ack().await?);
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Cancelled);
    assert!(status.result.is_none());
    // The slot is free again.
    let next = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.succeed(&assign, 0, "done");
    tasks::until_state(client, &next.name, TaskState::Succeeded).await?;
    history::check(client, true).await?.check()
}

/// Any response of the worker ends the task, without waiting for the timeout of the assignment.
#[tokio::test]
async fn unaccepted_assignment_is_cancelled() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    for (has_it, reason) in [(true, "RUNNING>CANCELLED:cancelled"), (false, "ASSIGNED>PENDING:rejected")] {
        let task = tasks::create(client, tasks::task("echo")).await?;
        let assign = worker.next_assignment().await?;
        tasks::cancel(client, &task.name).await?;
        let message = worker.receive().await?;
        assert!(matches!(message, rota_proto::worker::v1::session_response::Kind::Cancel(_)), "{message:?}");
        if has_it {
            worker.report_cancelled(&assign);
        } else {
            worker.reject(&assign, "it is not here");
        }
        let status = tasks::ended(client, &task.name).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Cancelled);
        let steps = tasks::steps(&tasks::log(client, &task.name).await?);
        assert!(steps.contains(&reason.to_owned()), "{steps:?}");
    }
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn running_task_is_cancelled() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 3)?;
    let create = async |step| tasks::create(client, tasks::scripted("echo", [step])).await;
    let waits = create(Step::Delay(tasks::millis(3_600_000))).await?;
    tasks::until_state(client, &waits.name, TaskState::Running).await?;
    assert_cancelled(client, &waits.name).await?;
    let hangs = create(Step::Hang(true)).await?;
    tasks::until_state(client, &hangs.name, TaskState::Running).await?;
    assert_cancelled(client, &hangs.name).await?;
    let asks = create(Step::Ask("go?".into())).await?;
    tasks::until_state(client, &asks.name, TaskState::InputRequired).await?;
    let status = assert_cancelled(client, &asks.name).await?;
    assert!(status.pending_input.is_empty());
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn cancellation_reaches_reconnecting_worker() -> Result<()> {
    let mut setup = rota_testkit::Setup::new(Backend::Memory);
    setup.timing.reconnect_grace = std::time::Duration::from_secs(60);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    tasks::until_state(client, &task.name, TaskState::Running).await?;
    worker.close().await;
    tasks::cancel(client, &task.name).await?;
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&assign, 0, 0));
    let mut worker = RawWorker::join(client, hello).await?;
    let message = worker.receive().await?;
    assert!(matches!(message, rota_proto::worker::v1::session_response::Kind::Cancel(_)), "{message:?}");
    let by = rota_proto::worker::v1::Cancelled { by: "interrupt".into() };
    worker.send(rota_proto::worker::v1::session_request::Kind::Result(Box::new(
        rota_proto::worker::v1::Result {
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            kind: Some(rota_proto::worker::v1::result::Kind::Cancelled(by)),
            ..Default::default()
        },
    )));
    assert!(worker.result_ack().await?);
    tasks::until_state(client, &task.name, TaskState::Cancelled).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn ended_task_is_not_cancelled() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    let refused = tasks::cancel(client, &task.name).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("TASK_ENDED"));
    // A cancelled task cannot be resumed either.
    let mut cancelled = tasks::task("missing");
    cancelled.alias = "dropped".to_owned();
    let mut cancelled = tasks::create(client, cancelled).await?;
    tasks::cancel(client, &cancelled.name).await?;
    cancelled.set_desired_state(v1::DesiredState::Run);
    let refused = tasks::update(client, cancelled, &["desired_state"]).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("TASK_CANCELLING"));
    history::check(client, true).await?.check()
}
