//! Outages of the store and of the control plane, in which no attempt may be lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use rota_proto::v1::{DrainAgentRequest, TaskState};
use rota_proto::worker::v1::Hello;
use rota_proto::worker::v1::resume_attempt::Kind as Resume;
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};

const SECOND: i64 = 1_000_000;

/// Waits until the control plane knows that the store fails, and has known for longer than the reconnect grace period.
async fn outlast_the_grace(cluster: &Cluster, grace: Duration) -> Result<()> {
    let probe = async || {
        let refused = tasks::agent(cluster.client(), "probe", tasks::script([]), &[]).await;
        anyhow::ensure!(refused.is_err(), "the store takes writes");
        anyhow::Ok(())
    };
    let until = tokio::time::Instant::now() + 2 * grace;
    while tokio::time::Instant::now() < until {
        // A client retries by itself for a moment.
        let _ = tokio::time::timeout(Duration::from_millis(200), probe()).await;
    }
    Ok(())
}

#[tokio::test]
async fn full_store_ends_no_attempt() -> Result<()> {
    let mut setup = Setup::new(Backend::Memory);
    // In which a slow worker comes back, too.
    let grace = Duration::from_secs(10);
    setup.timing.reconnect_grace = grace;
    let full = std::sync::Arc::clone(&setup.full);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut busy = RawWorker::join(client, raw::hello("echo", "busy", 2)).await?;
    let mut cut = RawWorker::join(client, raw::hello("echo", "cut", 1)).await?;
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(tasks::create(client, tasks::task("echo")).await?.name);
    }
    let busy_with = [busy.take().await?, busy.take().await?];
    let cut_with = cut.take().await?;
    for name in &names {
        tasks::until_state(client, name, TaskState::Running).await?;
    }

    full.store(true, Ordering::Relaxed);
    // One worker reports, in several messages, and stays; another loses its connection and cannot come back.
    for seq in 1..=3 {
        busy.report(&busy_with[0], seq, vec![raw::output(&seq.to_string())]);
    }
    busy.succeed(&busy_with[1], 0, "done");
    cut.close().await;
    outlast_the_grace(&cluster, grace).await?;
    full.store(false, Ordering::Relaxed);

    let mut hello = raw::hello("echo", "cut", 1);
    hello.running.push(raw::running(&cut_with, 0, 0));
    let mut cut = RawWorker::join(client, hello).await?;
    assert_eq!(cut.welcome.resume[0].kind, Some(Resume::ContinueAfter(0)));
    cut.succeed(&cut_with, 0, "done");
    assert!(cut.result_ack().await?);
    assert!(busy.result_ack().await?, "the session must still be there");
    busy.succeed(&busy_with[0], 3, "done");
    assert!(busy.result_ack().await?);
    for name in &names {
        let status = tasks::ended(client, name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.attempt, status.worker_losses), (TaskState::Succeeded, 1, 0));
    }
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn result_of_long_outage_is_accepted() -> Result<()> {
    let setup = Setup::new(Backend::Sqlite);
    let skew = std::sync::Arc::clone(&setup.skew);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(&client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(&client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    tasks::until_state(&client, &task.name, TaskState::Running).await?;
    // Its deadline passes while the control plane is down.
    cluster.kill().await;
    skew.store(2 * 3600 * SECOND, Ordering::Relaxed);
    cluster.restart().await?;
    let store = cluster.store().context("no store")?;
    store.apply(vec![rota_store::Command::tick(10)]).await?;
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&assign, 0, 0));
    let mut worker = RawWorker::join(&client, hello).await?;
    store.apply(vec![rota_store::Command::tick(10)]).await?;
    worker.succeed(&assign, 0, "done in time");
    assert!(worker.result_ack().await?);
    let status = tasks::ended(&client, &task.name).await?.status.context("no status")?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1));
    Ok(())
}

#[tokio::test]
async fn planned_stop_is_no_worker_loss() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    for worker in ["a", "b"] {
        let mut hand = RawWorker::join(client, raw::hello("echo", worker, 1)).await?;
        hand.take().await?;
        tasks::until(client, &task.name, |s| s.state() == TaskState::Running && s.worker == worker).await?;
        let draining = rota_proto::worker::v1::Draining { reason: "the node is drained".to_owned() };
        hand.send(rota_proto::worker::v1::session_request::Kind::Draining(draining));
        tasks::eventually("the drain", async || {
            Ok(tasks::workers(client)
                .await?
                .iter()
                .any(|known| known.name.ends_with(worker) && known.draining))
        })
        .await?;
        let name = rota_proto::names::worker(tasks::NAMESPACE, worker);
        let request = rota_proto::v1::ReportWorkerDeathRequest { name, ..Default::default() };
        assert_eq!(client.report_worker_death(request).await?.freed_tasks, 1);
    }
    let status = tasks::get(client, &task.name).await?.status.context("no status")?;
    assert_eq!((status.attempt, status.worker_losses), (2, 0));
    Ok(())
}

#[tokio::test]
async fn drain_survives_a_restart() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    // Neither notes the drain by itself, as one that was cut off before the message arrived.
    let mut before = Vec::new();
    for worker in ["same", "other"] {
        before.push(RawWorker::join(&client, raw::hello("echo", worker, 1)).await?);
    }
    let name = rota_proto::names::agent(tasks::NAMESPACE, "echo");
    let drain = DrainAgentRequest { name, ..Default::default() };
    assert_eq!(client.drain_agent(drain).await?.workers.len(), 2);
    cluster.stop().await.context("it does not stop")?;
    cluster.restart().await?;
    let listed = tasks::workers(&client).await?;
    let away = listed.iter().filter(|worker| worker.draining && !worker.connected);
    assert_eq!(away.count(), 2, "{listed:?}");
    let mut same = RawWorker::join(&client, raw::hello("echo", "same", 1)).await?;
    assert!(matches!(same.receive().await?, Incoming::Drain(_)));
    // A process that was started in the meantime is not drained.
    let hello = Hello { instance: "another".to_owned(), ..raw::hello("echo", "other", 1) };
    let mut other = RawWorker::join(&client, hello).await?;
    let task = tasks::create(&client, tasks::task("echo")).await?;
    assert_eq!(other.take().await?.task_id, task.uid);
    Ok(())
}

/// Task that one clear loss too many puts into quarantine.
fn fragile() -> rota_proto::v1::Task {
    let mut task = tasks::task("echo");
    let retry = rota_proto::v1::RetryPolicy { max_worker_losses: Some(0), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    task
}

#[tokio::test]
async fn neighbors_are_not_to_blame_for_a_death() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let all = [tasks::create(client, fragile()).await?, tasks::create(client, fragile()).await?];
    for (worker, disrupted) in [("a", false), ("b", false), ("c", true)] {
        let mut hand = RawWorker::join(client, raw::hello("echo", worker, 2)).await?;
        for _ in 0..2 {
            hand.take().await?;
        }
        for task in &all {
            let runs = |s: &rota_proto::v1::TaskStatus| s.state() == TaskState::Running && s.worker == worker;
            tasks::until(client, &task.name, runs).await?;
        }
        let name = rota_proto::names::worker(tasks::NAMESPACE, worker);
        let request = rota_proto::v1::ReportWorkerDeathRequest { name, disrupted, ..Default::default() };
        assert_eq!(client.report_worker_death(request).await?.freed_tasks, 2);
    }
    for task in &all {
        let status = tasks::get(client, &task.name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.worker_losses), (TaskState::Queued, 2), "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn stops_of_the_whole_machine_quarantine_no_task() -> Result<()> {
    let mut setup = rota_testkit::Setup::new(Backend::Sqlite);
    setup.timing.recovery_grace = std::time::Duration::from_millis(100);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let task = tasks::create(&client, fragile()).await?;
    // Workers that come back under their names, and others.
    for worker in ["a", "a", "b"] {
        let mut hello = raw::hello("echo", worker, 1);
        hello.instance = uuid::Uuid::new_v4().to_string();
        let mut hand = RawWorker::join(&client, hello).await?;
        hand.take().await?;
        tasks::until_state(&client, &task.name, TaskState::Running).await?;
        hand.close().await;
        cluster.kill().await;
        cluster.restart().await?;
    }
    let status =
        tasks::until_state(&client, &task.name, TaskState::Queued).await?.status.context("no status")?;
    assert_eq!((status.attempt, status.worker_losses), (3, 3));
    Ok(())
}

#[tokio::test]
async fn reason_of_a_planned_stop_is_kept() -> Result<()> {
    use rota_proto::v1;
    use rota_proto::worker::v1::{Result as AttemptResult, result, session_request};
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let mut hand = RawWorker::join(client, raw::hello("echo", "a", 1)).await?;
    let assign = hand.take().await?;
    let failure = v1::Failure {
        class: v1::FailureClass::WorkerLost.into(),
        message: "the worker was stopped for an update".into(),
        ..Default::default()
    };
    hand.send(session_request::Kind::Result(Box::new(AttemptResult {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        kind: Some(result::Kind::Failed(failure)),
        ..AttemptResult::default()
    })));
    hand.take().await?;
    let log = tasks::log(client, &task.name).await?;
    let kept = log.iter().any(|event| match &event.kind {
        Some(v1::event::Kind::State(change)) => change.message == "the worker was stopped for an update",
        _ => false,
    });
    assert!(kept, "{:?}", tasks::steps(&log));
    let status = tasks::get(client, &task.name).await?.status.context("no status")?;
    assert_eq!((status.attempt, status.worker_losses), (2, 0));
    Ok(())
}
