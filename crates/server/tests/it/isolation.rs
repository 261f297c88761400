//! Tasks with a worker of their own, which runs nothing else.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use rota_core::target::ISOLATED;
use rota_proto::v1::{self, Isolation, TaskState};
use rota_proto::worker::v1::Hello;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::tasks::WAIT_TIMEOUT;
use rota_testkit::{Backend, Cluster, Setup, tasks};

const PARENT: &str = "namespaces/default";

fn isolated_task() -> v1::Task {
    let mut task = tasks::task("echo");
    task.spec.get_or_insert_default().isolation = Isolation::Pod.into();
    task
}

/// Waits until the demand meets a condition.
async fn wait_for_demand(
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
    tokio::time::timeout(WAIT_TIMEOUT, wait).await?
}

#[tokio::test]
async fn isolated_task_runs_only_on_its_worker() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let mut shared = RawWorker::join(client, raw::hello("echo", "shared", 1)).await?;
        let own = tasks::create(client, isolated_task()).await?;
        assert_eq!(own.status.as_ref().unwrap().state(), TaskState::Queued);
        let explained = client.explain_task(v1::ExplainTaskRequest { name: own.name.clone() }).await?;
        assert_eq!(explained.causes[0].code, "no_worker");
        assert!(explained.summary.contains("worker for this task"), "{}", explained.summary);
        let demand = wait_for_demand(&cluster, |now| !now.isolated.is_empty()).await?;
        let expected = v1::IsolatedDemand {
            task: own.name.clone(),
            agent: "echo".into(),
            queued: true,
            ..Default::default()
        };
        assert_eq!(demand.isolated, [expected]);
        assert_eq!(demand.demands[0].queued, 0, "it is no demand of the pool's");
        // The shared worker was free all the time.
        let plain = tasks::create(client, tasks::task("echo")).await?;
        assert_eq!(shared.take().await?.task_id, plain.uid);

        let mut hello = raw::hello("echo", "alone", 2);
        hello.isolated_task = own.uid.clone();
        let mut alone = RawWorker::join(client, hello).await?;
        let assign = alone.take().await?;
        assert_eq!(assign.task_id, own.uid);
        let demand = wait_for_demand(&cluster, |now| now.isolated.iter().any(|one| !one.queued)).await?;
        assert_eq!(demand.isolated[0].worker, "alone");
        assert_eq!(demand.demands[0].workers.len(), 1, "it is none of the pool's workers");
        // The worker has a free slot, which no other task may use.
        let waiting = tasks::create(client, tasks::task("echo")).await?;
        let explained = client.explain_task(v1::ExplainTaskRequest { name: waiting.name.clone() }).await?;
        assert_eq!(explained.causes[0].code, "no_free_slot");
        assert!(explained.causes[0].message.contains("all 1 slots of the 1 workers"), "{explained:?}");

        alone.succeed(&assign, 0, "done");
        assert!(alone.result_ack().await?);
        assert_eq!(tasks::ended(client, &own.name).await?.status.unwrap().state(), TaskState::Succeeded);
        wait_for_demand(&cluster, |now| now.isolated.is_empty()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn isolated_task_survives_restart_and_loss() -> Result<()> {
    let mut setup = Setup::new(Backend::Sqlite);
    // However long the end takes on a busy machine, the worker is not lost before.
    setup.timing.reconnect_grace = std::time::Duration::from_secs(60);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let own = tasks::create(&client, isolated_task()).await?;
    let mut hello = raw::hello("echo", "alone", 1);
    hello.isolated_task = own.uid.clone();
    let mut alone = RawWorker::join(&client, hello.clone()).await?;
    let assign = alone.take().await?;
    tasks::until_state(&client, &own.name, TaskState::Running).await?;
    cluster.kill().await;
    cluster.restart().await?;
    // The assignment is known before the worker is back.
    let demand = wait_for_demand(&cluster, |now| !now.isolated.is_empty()).await?;
    assert!(!demand.isolated[0].queued);
    assert_eq!(demand.isolated[0].worker.as_str(), "alone");
    hello.running = vec![raw::running(&assign, 0, 0)];
    let alone = RawWorker::join(&client, hello).await?;
    assert_eq!(alone.welcome.resume.len(), 1);
    // Its pod was deleted: another one runs the task.
    let death = v1::ReportWorkerDeathRequest {
        name: "namespaces/default/workers/alone".into(),
        instance: String::new(),
        message: "evicted".into(),
        disrupted: true,
        node_pressure: false,
    };
    assert_eq!(client.report_worker_death(death).await?.freed_tasks, 1);
    let demand = wait_for_demand(&cluster, |now| now.isolated.iter().any(|one| one.queued)).await?;
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

/// Returns a task for workers that isolate their attempts and have the capability `code`.
fn demanding() -> v1::Task {
    let words = ["code", ISOLATED].map(str::to_owned).into();
    let kind = v1::target::Kind::Capabilities(v1::CapabilitySet { capabilities: words });
    let mut task = tasks::task("echo");
    task.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(kind) });
    task
}

/// Attempts that are isolated from each other are a property of a worker. Pools start workers for such tasks all the same.
#[tokio::test]
async fn task_demands_workers_that_isolate() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &["code"]).await?;
    let mut open = RawWorker::join(client, raw::hello("echo", "open", 1)).await?;
    let task = tasks::create(client, demanding()).await?;
    let explained = client.explain_task(v1::ExplainTaskRequest { name: task.name.clone() }).await?;
    assert_eq!(explained.causes[0].code, "no_worker");
    assert!(explained.summary.contains("capabilities code, isolated"), "{}", explained.summary);
    wait_for_demand(&cluster, |now| now.demands.iter().any(|one| one.queued == 1)).await?;
    // The other worker was free all the time.
    let plain = tasks::create(client, tasks::task("echo")).await?;
    assert_eq!(open.take().await?.task_id, plain.uid);

    let hello = Hello { isolated: true, ..raw::hello("echo", "confined", 1) };
    let mut confined = RawWorker::join(client, hello).await?;
    let assign = confined.take().await?;
    assert_eq!(assign.task_id, task.uid);
    confined.succeed(&assign, 0, "done");
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    Ok(())
}

/// Pools start workers in spite of free slots that the task cannot use, and explanations agree.
#[tokio::test]
async fn free_slots_without_isolation_start_another_worker() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let agent = tasks::agent(client, "echo", tasks::script([]), &["code"]).await?;
    let mut spec = agent.spec.context("an agent without a spec")?;
    spec.management = v1::Management::Managed.into();
    spec.max_replicas = Some(3);
    let agent = v1::Agent { name: agent.name, spec: Some(spec), ..Default::default() };
    client.update_agent(v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() }).await?;
    // The pool has started none of these, since they are no pods.
    let _open = RawWorker::join(client, raw::hello("echo", "open", 1)).await?;
    let _another = RawWorker::join(client, raw::hello("echo", "another", 1)).await?;
    let task = tasks::create(client, demanding()).await?;
    let demand = wait_for_demand(&cluster, |now| now.demands.iter().any(|one| one.queued == 1)).await?;
    assert_eq!(demand.demands[0].queued_isolated, 1);
    let explained = client.explain_task(v1::ExplainTaskRequest { name: task.name }).await?;
    let starting = explained.causes.iter().find(|cause| cause.code == "pool_starting");
    let message = starting.map(|cause| cause.message.as_str()).unwrap_or_default();
    assert!(message.starts_with("1 more workers of agent echo are starting"), "{explained:?}");
    Ok(())
}

/// An agent whose workers do not isolate is not waited for where another one may have workers that do.
#[tokio::test]
async fn demand_for_isolation_prefers_agents_that_may() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &["code"]).await?;
    tasks::agent(client, "larger", tasks::script([]), &["code", "review"]).await?;
    let task = tasks::create(client, demanding()).await?;
    let counts_for = async |agent: &str| {
        let name = format!("namespaces/default/agents/{agent}");
        let counts = |one: &v1::Demand| one.agent == name && one.queued == 1;
        wait_for_demand(&cluster, |now| now.demands.iter().any(&counts)).await
    };
    counts_for("echo").await?;
    let _open = RawWorker::join(client, raw::hello("echo", "open", 1)).await?;
    counts_for("larger").await?;
    let hello = Hello { isolated: true, ..raw::hello("echo", "confined", 1) };
    let mut confined = RawWorker::join(client, hello).await?;
    assert_eq!(confined.take().await?.task_id, task.uid);
    Ok(())
}

#[tokio::test]
async fn invalid_isolation_is_rejected() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let mut task = isolated_task();
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

#[tokio::test]
async fn sick_worker_of_an_isolated_task_is_reported() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let own = tasks::create(client, isolated_task()).await?;
    let hello = Hello {
        isolated_task: own.uid.clone(),
        not_ready_reason: "no disk".to_owned(),
        ..raw::hello("echo", "sick", 1)
    };
    let sick = RawWorker::join(client, hello.clone()).await?;
    let sick_one = |now: &v1::WatchDemandResponse| {
        now.isolated.iter().any(|one| one.queued && one.worker == "sick" && one.unavailable_since.is_some())
    };
    wait_for_demand(&cluster, sick_one).await?;
    drop(sick);
    let mut healthy = RawWorker::join(client, Hello { not_ready_reason: String::new(), ..hello }).await?;
    assert_eq!(healthy.take().await?.task_id, own.uid);
    let demand = wait_for_demand(&cluster, |now| now.isolated.iter().any(|one| !one.queued)).await?;
    assert_eq!(demand.isolated[0].unavailable_since, None);
    Ok(())
}

#[tokio::test]
async fn failed_starts_for_one_task_are_its_own() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client().clone();
    let client = &client;
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let own = tasks::create(client, isolated_task()).await?;
    let other = tasks::create(client, isolated_task()).await?;
    let shared = tasks::create(client, tasks::task("echo")).await?;
    let failure =
        |task: &str| v1::IsolatedStartFailure { task: task.into(), message: "no node has 64 CPUs".into() };
    let report = async |isolated| {
        let name = format!("{PARENT}/agents/echo");
        client.report_agent(v1::ReportAgentRequest { name, isolated, ..Default::default() }).await
    };
    let summary = async |name: &str| -> Result<String> {
        Ok(client.explain_task(v1::ExplainTaskRequest { name: name.into() }).await?.summary)
    };
    report(vec![failure(&own.uid)]).await?;
    assert!(summary(&own.name).await?.contains("no node has 64 CPUs"));
    for name in [&other.name, &shared.name] {
        assert!(!summary(name).await?.contains("64 CPUs"));
    }
    let status = client.get_system_status(v1::GetSystemStatusRequest {}).await?;
    assert_eq!(status.causes, [], "the pool is not at fault");
    let refused = report(vec![failure("x")]).await.unwrap_err();
    assert_eq!(refused.fields[0].field, "isolated[0].task");
    let many = report(vec![failure(&own.uid); 101]).await.unwrap_err();
    assert_eq!(many.fields[0].field, "isolated");
    report(Vec::new()).await?;
    assert!(!summary(&own.name).await?.contains("64 CPUs"));
    cluster.stop().await.context("it did not end")?;
    Ok(())
}
