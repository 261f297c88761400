//! A task with a worker of its own: nobody else does it, and that worker does nothing else.

use anyhow::{Result, bail};
use futures::StreamExt;
use rota_proto::v1::{self, Isolation, TaskState};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::tasks::PATIENCE;
use rota_testkit::{Cluster, Keep, Setup, tasks};

const PARENT: &str = "namespaces/default";

fn isolated() -> v1::Task {
    let mut task = tasks::task("echo");
    task.spec.get_or_insert_default().isolation = Isolation::Pod.into();
    task
}

/// Waits until the demand is as wanted.
async fn until_demand(
    cluster: &Cluster,
    wanted: impl Fn(&v1::WatchDemandResponse) -> bool,
) -> Result<v1::WatchDemandResponse> {
    let wait = async {
        let mut demand = cluster.client().watch_demand(PARENT);
        while let Some(now) = demand.next().await {
            let now = now?;
            if wanted(&now) {
                return Ok(now);
            }
        }
        bail!("the watch has ended")
    };
    tokio::time::timeout(PATIENCE, wait).await?
}

#[tokio::test]
async fn only_its_own_worker_takes_it() -> Result<()> {
    for keep in [Keep::Memory, Keep::Sqlite] {
        let cluster = Cluster::start(keep).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let mut shared = RawWorker::join(client, raw::hello("echo", "shared", 1)).await?;
        let own = tasks::create(client, isolated()).await?;
        assert_eq!(own.status.as_ref().unwrap().state(), TaskState::Queued);
        let explained = client.explain_task(v1::ExplainTaskRequest { name: own.name.clone() }).await?;
        assert_eq!(explained.causes[0].code, "no_worker");
        assert!(explained.summary.contains("its own worker"), "{}", explained.summary);
        let demand = until_demand(&cluster, |now| !now.isolated.is_empty()).await?;
        let expected = v1::IsolatedDemand {
            task: own.name.clone(),
            agent: "echo".into(),
            queued: true,
            worker: String::new(),
        };
        assert_eq!(demand.isolated, [expected]);
        assert_eq!(demand.demands[0].queued, 0, "it is no demand of the pool's");
        // The shared worker has been free all the time.
        let plain = tasks::create(client, tasks::task("echo")).await?;
        assert_eq!(shared.take().await?.task_id, plain.uid);

        let mut hello = raw::hello("echo", "alone", 2);
        hello.isolated_task = own.uid.clone();
        let mut alone = RawWorker::join(client, hello).await?;
        let assign = alone.take().await?;
        assert_eq!(assign.task_id, own.uid);
        let demand = until_demand(&cluster, |now| now.isolated.iter().any(|one| !one.queued)).await?;
        assert_eq!(demand.isolated[0].worker, "alone");
        assert_eq!(demand.demands[0].workers.len(), 1, "it is none of the pool's workers");
        // It has a slot left, which nobody else's task may fill.
        let waiting = tasks::create(client, tasks::task("echo")).await?;
        let explained = client.explain_task(v1::ExplainTaskRequest { name: waiting.name.clone() }).await?;
        assert_eq!(explained.causes[0].code, "no_free_slot");
        assert!(explained.causes[0].message.contains("all 1 slots of the 1 workers"), "{explained:?}");

        alone.succeed(&assign, 0, "done");
        assert!(alone.result_ack().await?);
        assert_eq!(tasks::ended(client, &own.name).await?.status.unwrap().state(), TaskState::Succeeded);
        until_demand(&cluster, |now| now.isolated.is_empty()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn it_goes_on_over_a_restart_and_after_a_loss() -> Result<()> {
    let mut setup = Setup::new(Keep::Sqlite);
    // However long the end takes on a busy machine, the worker is not lost before it.
    setup.timing.reconnect_grace = std::time::Duration::from_secs(60);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let own = tasks::create(&client, isolated()).await?;
    let mut hello = raw::hello("echo", "alone", 1);
    hello.isolated_task = own.uid.clone();
    let mut alone = RawWorker::join(&client, hello.clone()).await?;
    let assign = alone.take().await?;
    tasks::until_state(&client, &own.name, TaskState::Running).await?;
    cluster.kill().await;
    cluster.restart().await?;
    // Who has it is known before the worker is back.
    let demand = until_demand(&cluster, |now| !now.isolated.is_empty()).await?;
    assert_eq!((demand.isolated[0].queued, demand.isolated[0].worker.as_str()), (false, "alone"));
    hello.running = vec![raw::running(&assign, 0, 0)];
    let alone = RawWorker::join(&client, hello).await?;
    assert_eq!(alone.welcome.resume.len(), 1);
    // Its pod is gone: another one takes it.
    let death = v1::ReportWorkerDeathRequest {
        name: "namespaces/default/workers/alone".into(),
        instance: String::new(),
        message: "evicted".into(),
    };
    assert_eq!(client.report_worker_death(death).await?.freed_tasks, 1);
    let demand = until_demand(&cluster, |now| now.isolated.iter().any(|one| one.queued)).await?;
    assert_eq!(demand.isolated[0].worker, "");
    let mut hello = raw::hello("echo", "another", 1);
    hello.isolated_task = own.uid.clone();
    let mut another = RawWorker::join(&client, hello).await?;
    let assign = another.take().await?;
    assert_eq!(assign.attempt, 2);
    another.succeed(&assign, 0, "done");
    assert!(another.result_ack().await?);
    assert_eq!(tasks::ended(&client, &own.name).await?.status.unwrap().state(), TaskState::Succeeded);
    Ok(())
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() -> Result<()> {
    let cluster = Cluster::start(Keep::Memory).await?;
    let client = cluster.client();
    let mut task = isolated();
    let worker = v1::target::Kind::Worker("w".into());
    task.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(worker) });
    let refused = tasks::create(client, task).await.unwrap_err();
    assert!(format!("{refused:#}").contains("isolation"), "{refused:#}");
    let mut hello = raw::hello("echo", "w", 1);
    hello.isolated_task = "a task".into();
    let refused = RawWorker::join(client, hello).await.unwrap_err();
    assert!(format!("{refused:#}").contains("hello.isolated_task"), "{refused:#}");
    Ok(())
}
