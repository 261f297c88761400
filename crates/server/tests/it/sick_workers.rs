//! Sick workers among healthy ones: they get no more tasks, and no task fails because of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use rota_core::breaker::Policy;
use rota_proto::v1::{self, FailureClass, TaskState, script_step::Kind as Step};
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{Assign, Hello, Result as AttemptResult, WorkerStatus, result};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};

#[derive(Clone, Copy)]
enum Sickness {
    Fails(FailureClass),
    Rejects,
}

impl Sickness {
    fn end(self, worker: &RawWorker, assign: &Assign) {
        match self {
            Self::Rejects => worker.reject(assign, "not today"),
            Self::Fails(class) => {
                worker.accept(assign);
                let failure = v1::Failure {
                    class: class.into(),
                    message: "no space left".to_owned(),
                    ..Default::default()
                };
                worker.send(Kind::Result(Box::new(AttemptResult {
                    task_id: assign.task_id.clone(),
                    fence: assign.fence,
                    kind: Some(result::Kind::Failed(failure)),
                    ..AttemptResult::default()
                })));
            }
        }
    }
}

/// Runs tasks on 19 healthy workers and a sick one, which is faster than all of them.
async fn run_among_healthy(sickness: Sickness) -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([Step::Delay(tasks::millis(50))]), &[]).await?;
    // The first by name, which a tie must not prefer again and again.
    let mut sick = RawWorker::join(client, raw::hello("echo", "a-sick", 1)).await?;
    let mut healthy = Vec::new();
    for number in 0..19 {
        let name = format!("worker-{number}");
        healthy.push(cluster.worker("echo", &name, 1)?);
        tasks::connected(client, &name).await?;
    }
    let mut names = Vec::new();
    for _ in 0..200 {
        let mut task = tasks::task("echo");
        let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(1)), ..Default::default() };
        task.spec.get_or_insert_default().retry = Some(retry);
        names.push(tasks::create(client, task).await?.name);
    }
    let ends = async {
        for name in &names {
            let status = tasks::ended(client, name).await?.status.context("no status")?;
            assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
        }
        anyhow::Ok(())
    };
    let mut count = 0;
    let falls_ill = async {
        while let Ok(assign) = sick.next_assignment().await {
            sickness.end(&sick, &assign);
            count += 1;
        }
    };
    tokio::select! {
        ended = ends => ended?,
        () = falls_ill => anyhow::bail!("the sick worker was cut off"),
    }
    assert!(count > 0, "the sick worker was never tried");
    // Also where its failure might be that of all workers: the tasks ran elsewhere. These tasks name no program.
    let workers = tasks::workers(client).await?;
    let sick = workers.iter().find(|worker| worker.name.ends_with("/a-sick")).context("no sick worker")?;
    let counts = !matches!(sickness, Sickness::Fails(FailureClass::Start));
    assert!(!counts || count < 5 || !sick.breaker.is_empty(), "{count} failures on {sick:?}");
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn full_disk_fails_no_task() -> Result<()> {
    run_among_healthy(Sickness::Fails(FailureClass::Environment)).await
}

#[tokio::test]
async fn worker_without_network_gets_no_more_tasks() -> Result<()> {
    run_among_healthy(Sickness::Fails(FailureClass::Source)).await
}

#[tokio::test]
async fn unreachable_host_is_no_failure_of_workers() -> Result<()> {
    let breakers = Policy { failures: 2, cooldown: Duration::from_secs(30) };
    let cluster = Cluster::start_with(Setup { breakers, ..Setup::new(Backend::Memory) }).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "a", 1)).await?;
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(tasks::create(client, tasks::task("echo")).await?.name);
    }
    for _ in 0..4 {
        let assign = worker.next_assignment().await?;
        Sickness::Fails(FailureClass::Source).end(&worker, &assign);
    }
    for name in &names {
        tasks::eventually("a failed attempt", async || {
            Ok(tasks::get(client, name).await?.status.is_some_and(|status| status.attempt == 1))
        })
        .await?;
    }
    let workers = tasks::workers(client).await?;
    assert_eq!(workers.first().context("no worker")?.breaker, "");
    Ok(())
}

/// All workers store what they make in the same place: that another one could do so later blames none.
#[tokio::test]
async fn full_storage_is_no_failure_of_workers() -> Result<()> {
    let breakers = Policy { failures: 2, cooldown: Duration::from_secs(30) };
    let cluster = Cluster::start_with(Setup { breakers, ..Setup::new(Backend::Memory) }).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut first = RawWorker::join(client, raw::hello("echo", "a", 5)).await?;
    let mut task = tasks::task("echo");
    let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(1)), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    let (mut names, mut assigned) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        names.push(tasks::create(client, task.clone()).await?.name);
        assigned.push(first.take().await?);
    }
    // So that another one gets the tasks.
    let not_ready_reason = "no memory".to_owned();
    first.send(Kind::Status(WorkerStatus { not_ready_reason, ..WorkerStatus::default() }));
    for assign in &assigned {
        let class = FailureClass::Source.into();
        first.fail(assign, v1::Failure { class, of_storage: true, ..Default::default() });
    }
    let mut second = RawWorker::join(client, raw::hello("echo", "b", 5)).await?;
    for _ in &names {
        let assign = second.take().await?;
        second.succeed(&assign, 0, "done");
    }
    for name in &names {
        let status = tasks::ended(client, name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2));
    }
    let workers = tasks::workers(client).await?;
    assert!(workers.iter().all(|worker| worker.breaker.is_empty()), "{workers:?}");
    Ok(())
}

#[tokio::test]
async fn missing_program_fails_no_task() -> Result<()> {
    run_among_healthy(Sickness::Fails(FailureClass::Start)).await
}

#[tokio::test]
async fn rejecting_worker_fails_no_task() -> Result<()> {
    run_among_healthy(Sickness::Rejects).await
}

#[tokio::test]
async fn deaf_worker_is_avoided() -> Result<()> {
    let setup = Setup::new(Backend::Memory);
    let skew = std::sync::Arc::clone(&setup.skew);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut deaf = RawWorker::join(client, raw::hello("echo", "deaf", 8)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    deaf.next_assignment().await?;
    let mut other = RawWorker::join(client, raw::hello("echo", "other", 1)).await?;
    tasks::connected(client, "other").await?;
    skew.store(11_000_000, Ordering::Relaxed);
    let store = cluster.store().context("no store")?;
    store.apply(vec![rota_store::Command::tick(10)]).await?;
    // Not on the deaf one, which has seven free slots.
    let assign = other.take().await?;
    other.succeed(&assign, 0, "done");
    let status = tasks::ended(client, &task.name).await?.status.context("no status")?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1));
    Ok(())
}

#[tokio::test]
async fn breaker_of_worker_opens_and_closes() -> Result<()> {
    let breakers = Policy { failures: 2, cooldown: Duration::from_millis(300) };
    let cluster = Cluster::start_with(Setup { breakers, ..Setup::new(Backend::Memory) }).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "sick", 4)).await?;
    let mut task = tasks::task("echo");
    let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(1)), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    // One task does not open it, however often it fails.
    let names = [tasks::create(client, task.clone()).await?.name, tasks::create(client, task).await?.name];
    for _ in 0..2 {
        let assign = worker.next_assignment().await?;
        Sickness::Fails(FailureClass::Environment).end(&worker, &assign);
    }
    let breaker = async || {
        let workers = tasks::workers(client).await?;
        anyhow::Ok(workers.first().context("no worker")?.breaker.clone())
    };
    tasks::eventually("an open breaker", async || Ok(!breaker().await?.is_empty())).await?;
    assert!(breaker().await?.contains("2 consecutive failures of the worker (environment: no space left)"));
    // The only worker: the probe is one of them, and heals it.
    for _ in 0..2 {
        let assign = worker.take().await?;
        worker.succeed(&assign, 0, "done");
    }
    for name in &names {
        let status = tasks::ended(client, name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2));
    }
    tasks::eventually("a closed breaker", async || Ok(breaker().await?.is_empty())).await
}

#[tokio::test]
async fn worker_that_is_not_ready_gets_nothing() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let hello = Hello { not_ready_reason: "no disk".to_owned(), ..raw::hello("echo", "worker", 1) };
    let mut worker = RawWorker::join(client, hello).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let known = |reason: &'static str| async move {
        let workers = tasks::workers(client).await?;
        Ok(workers.iter().any(|worker| worker.not_ready_reason == reason))
    };
    tasks::eventually("the reason from Hello", || known("no disk")).await?;
    let why = client.explain_task(v1::ExplainTaskRequest { name: task.name.clone() }).await?;
    let codes: Vec<_> = why.causes.into_iter().map(|cause| cause.code).collect();
    assert_eq!(codes, ["worker_not_ready"], "its slot is not busy");
    let status = client.get_system_status(v1::GetSystemStatusRequest {}).await?;
    let [cause] = &status.causes[..] else { anyhow::bail!("{:?}", status.causes) };
    assert_eq!((cause.code.as_str(), status.state()), ("workers_not_ready", v1::SystemState::Degraded));
    assert!(cause.message.contains("default/echo") && cause.message.ends_with("no disk"), "{cause:?}");

    // Other workers of its machine would be no better, unless the cause is its own.
    let mut demand = client.watch_demand("namespaces/-");
    let mut of_machine = async |wanted: bool| {
        let reported = async {
            loop {
                let demand = demand.next().await.context("it ended")??;
                let workers = demand.demands.into_iter().flat_map(|demand| demand.workers);
                let found: Vec<_> = workers.map(|worker| (worker.unavailable, worker.not_ready)).collect();
                if found == [(true, wanted)] {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(120), reported).await?
    };
    of_machine(true).await?;
    worker.send(Kind::Status(WorkerStatus {
        not_ready_reason: "a process cannot be ended".to_owned(),
        not_ready_alone: true,
        ..WorkerStatus::default()
    }));
    of_machine(false).await?;

    worker.send(Kind::Status(WorkerStatus::default()));
    let assign = worker.take().await?;
    worker.send(Kind::Status(WorkerStatus {
        not_ready_reason: "no memory".to_owned(),
        ..WorkerStatus::default()
    }));
    worker.succeed(&assign, 0, "done");
    assert_eq!(tasks::ended(client, &task.name).await?.status.context("no status")?.attempt, 1);
    tasks::eventually("the reason from the status", || known("no memory")).await?;
    let second = tasks::create(client, tasks::task("echo")).await?;
    assert_eq!(
        tasks::get(client, &second.name).await?.status.context("no status")?.state(),
        TaskState::Queued
    );
    Ok(())
}
