//! Asking for a task's end in every state.

use anyhow::Result;
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Cluster, Keep, history, tasks};

async fn is_cancelled(client: &rota_client::Client, name: &str) -> Result<v1::TaskStatus> {
    tasks::cancel(client, name).await?;
    // Asked again, before or after its end: nothing more.
    tasks::cancel(client, name).await?;
    let status = tasks::ended(client, name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Cancelled, "{status:?}");
    let told = tasks::cancel(client, name).await?;
    assert_eq!(told.status.unwrap().state(), TaskState::Cancelled);
    let log = tasks::log(client, name).await?;
    let asked = log.iter().filter(|event| matches!(event.kind, Some(v1::event::Kind::Change(_)))).count();
    assert_eq!(asked, 1, "{log:?}");
    Ok(status)
}

#[tokio::test]
async fn before_it_starts() -> Result<()> {
    let cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client();
    // PENDING, for want of its agent.
    let task = tasks::create(client, tasks::task("echo")).await?;
    assert_eq!(task.status.unwrap().state(), TaskState::Pending);
    is_cancelled(client, &task.name).await?;
    // QUEUED, for want of a worker.
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    assert_eq!(task.status.unwrap().state(), TaskState::Queued);
    is_cancelled(client, &task.name).await?;
    // Born so.
    let mut born = tasks::task("echo");
    born.set_desired_state(v1::DesiredState::Cancelled);
    let task = tasks::create(client, born).await?;
    assert_eq!(task.status.unwrap().state(), TaskState::Cancelled);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn while_it_is_on_its_way() -> Result<()> {
    let cluster = Cluster::start(Keep::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.assigned().await?;
    tasks::cancel(client, &task.name).await?;
    let cancel = loop {
        if let rota_proto::worker::v1::session_response::Kind::Cancel(cancel) = worker.hear().await? {
            break cancel;
        }
    };
    assert_eq!((cancel.task_id.as_str(), cancel.fence), (assign.task_id.as_str(), assign.fence));
    // It was faster: what has been cancelled has no success all the same.
    worker.accept(&assign);
    worker.succeed(&assign, 0, "done");
    assert!(worker.result_ack().await?);
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Cancelled);
    assert!(status.result.is_none());
    // Its slot is free again.
    let next = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.succeed(&assign, 0, "done");
    tasks::until_state(client, &next.name, TaskState::Succeeded).await?;
    history::check(client, true).await?.check()
}

/// Whatever the worker answers, its word is the end: nobody waits until the assignment counts as not taken.
#[tokio::test]
async fn before_it_was_taken() -> Result<()> {
    let cluster = Cluster::start(Keep::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    for (has_it, reason) in [(true, "RUNNING>CANCELLED:cancelled"), (false, "ASSIGNED>PENDING:rejected")] {
        let task = tasks::create(client, tasks::task("echo")).await?;
        let assign = worker.assigned().await?;
        tasks::cancel(client, &task.name).await?;
        let heard = worker.hear().await?;
        assert!(matches!(heard, rota_proto::worker::v1::session_response::Kind::Cancel(_)), "{heard:?}");
        if has_it {
            worker.ended(&assign);
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
async fn while_it_runs() -> Result<()> {
    let cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 3)?;
    let create = async |step| tasks::create(client, tasks::scripted("echo", [step])).await;
    let waits = create(Step::Delay(tasks::millis(3_600_000))).await?;
    tasks::until_state(client, &waits.name, TaskState::Running).await?;
    is_cancelled(client, &waits.name).await?;
    let hangs = create(Step::Hang(true)).await?;
    tasks::until_state(client, &hangs.name, TaskState::Running).await?;
    is_cancelled(client, &hangs.name).await?;
    let asks = create(Step::Ask("go?".into())).await?;
    tasks::until_state(client, &asks.name, TaskState::InputRequired).await?;
    let status = is_cancelled(client, &asks.name).await?;
    assert!(status.pending_input.is_empty());
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn while_its_worker_is_away() -> Result<()> {
    let mut setup = rota_testkit::Setup::new(Keep::Memory);
    setup.timing.reconnect_grace = std::time::Duration::from_secs(60);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    tasks::until_state(client, &task.name, TaskState::Running).await?;
    worker.hang_up().await;
    tasks::cancel(client, &task.name).await?;
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&assign, 0, 0));
    let mut worker = RawWorker::join(client, hello).await?;
    let heard = worker.hear().await?;
    assert!(matches!(heard, rota_proto::worker::v1::session_response::Kind::Cancel(_)), "{heard:?}");
    let by = rota_proto::worker::v1::Cancelled { by: "interrupt".into() };
    worker.say(rota_proto::worker::v1::session_request::Kind::Result(rota_proto::worker::v1::Result {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        kind: Some(rota_proto::worker::v1::result::Kind::Cancelled(by)),
        ..Default::default()
    }));
    assert!(worker.result_ack().await?);
    tasks::until_state(client, &task.name, TaskState::Cancelled).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn what_has_ended_stays() -> Result<()> {
    let cluster = Cluster::start(Keep::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    let refused = tasks::cancel(client, &task.name).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("TASK_ENDED"));
    // Nor is there a way back from a cancelled one.
    let mut gone = tasks::task("nobody");
    gone.alias = "gone".to_owned();
    let mut gone = tasks::create(client, gone).await?;
    tasks::cancel(client, &gone.name).await?;
    gone.set_desired_state(v1::DesiredState::Run);
    let refused = tasks::update(client, gone, &["desired_state"]).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("TASK_CANCELLING"));
    history::check(client, true).await?.check()
}
