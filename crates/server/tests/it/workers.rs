//! Workers that are killed or disconnected: one result counts.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::{Hello, WorkerHeartbeat, resume_attempt};
use rota_store::{Command, OpenSession};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Proxy, Setup, WorkerHandle, history, output, tasks};

#[tokio::test]
async fn task_of_killed_worker_runs_elsewhere() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let first = cluster.worker("echo", "first", 1)?;
        let steps = [Step::Ask("go?".into()), Step::Succeed("done".into())];
        let task = tasks::create(client, tasks::scripted("echo", steps)).await?;
        let before = tasks::until_state(client, &task.name, TaskState::InputRequired).await?.status.unwrap();
        let _second = cluster.worker("echo", "second", 1)?;
        tasks::connected(client, "second").await?;
        first.kill().await;
        let lost =
            tasks::until(client, &task.name, |status| status.worker == "second").await?.status.unwrap();
        assert_eq!(lost.attempt, 2);
        assert_eq!(lost.worker_losses, 1);
        assert_eq!(lost.ready_time, before.ready_time);
        tasks::answer(client, &task.name, "yes").await?;
        let status = tasks::ended(client, &task.name).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded);
        assert_eq!(status.result.unwrap().text, "done");
        history::check(client, true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn late_success_counts_without_another_attempt() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let mut late = RawWorker::join(client, raw::hello("echo", "late", 1)).await?;
        let task = tasks::create(client, tasks::task("echo")).await?;
        let assign = late.take().await?;
        late.report(&assign, 1, vec![raw::output("before")]);
        tasks::eventually("the first output", async || {
            Ok(!tasks::outputs(&tasks::log(client, &task.name).await?).is_empty())
        })
        .await?;
        late.close().await;
        tasks::until(client, &task.name, |status| status.worker_losses == 1).await?;

        let mut hello = raw::hello("echo", "late", 1);
        hello.running.push(raw::running(&assign, 2, 0));
        let mut late = RawWorker::join(client, hello).await?;
        assert_eq!(late.welcome.resume[0].kind, Some(resume_attempt::Kind::ContinueAfter(1)));
        late.report(&assign, 2, vec![raw::output("after")]);
        late.succeed(&assign, 2, "paid");
        assert!(late.result_ack().await?);
        let status = tasks::ended(client, &task.name).await?.status.unwrap();
        assert_eq!((status.state(), status.attempt, status.worker_losses), (TaskState::Succeeded, 1, 0));
        assert_eq!(status.result.unwrap().text, "paid");
        let log = tasks::log(client, &task.name).await?;
        assert_eq!(tasks::outputs(&log), ["before", "after"]);
        // The slot is free again.
        tasks::create(client, tasks::task("echo")).await?;
        late.take().await?;
        history::check(client, false).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn late_result_is_rejected() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut late = RawWorker::join(client, raw::hello("echo", "late", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = late.take().await?;
    tasks::until_state(client, &task.name, TaskState::Running).await?;
    late.close().await;
    let mut other = RawWorker::join(client, raw::hello("echo", "other", 1)).await?;
    let again = other.take().await?;
    assert!(again.fence > assign.fence && again.attempt == 2);
    // It is back while the other one runs the task.
    let mut hello = raw::hello("echo", "late", 1);
    hello.running.push(raw::running(&assign, 0, 0));
    let mut late = RawWorker::join(client, hello).await?;
    assert!(matches!(late.welcome.resume[0].kind, Some(resume_attempt::Kind::Abandon(_))));
    late.report(&assign, 1, vec![raw::output("late")]);
    late.succeed(&assign, 1, "late");
    assert!(!late.result_ack().await?);
    other.succeed(&again, 0, "in time");
    assert!(other.result_ack().await?);
    // And again after the end.
    late.succeed(&assign, 1, "late");
    assert!(!late.result_ack().await?);
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.result.unwrap().text, "in time");
    let log = tasks::log(client, &task.name).await?;
    assert_eq!(tasks::notices(&log), ["stale_result"]);
    assert!(tasks::outputs(&log).is_empty());
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn agents_decide_how_long_their_workers_may_be_away() -> Result<()> {
    let mut setup = Setup::new(Backend::Memory);
    setup.timing.reconnect_grace = Duration::from_millis(300);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    let mut lost = Vec::new();
    for (agent, grace) in [("echo", None), ("patient", Some(Duration::from_secs(60)))] {
        tasks::agent(client, agent, tasks::script([]), &[]).await?;
        let mut given =
            v1::Agent { name: format!("namespaces/default/agents/{agent}"), ..Default::default() };
        given.spec.get_or_insert_default().reconnect_grace = grace.map(Into::into);
        let update_mask = Some(pbjson_types::FieldMask { paths: vec!["spec.reconnect_grace".to_owned()] });
        let request = v1::UpdateAgentRequest { agent: Some(given), update_mask, ..Default::default() };
        client.update_agent(request).await?;
        let mut worker = RawWorker::join(client, raw::hello(agent, agent, 1)).await?;
        let announced = worker.welcome.reconnect_grace.and_then(|grace| Duration::try_from(grace).ok());
        assert_eq!(announced, Some(grace.unwrap_or(Duration::from_millis(300))));
        let task = tasks::create(client, tasks::task(agent)).await?;
        let assign = worker.take().await?;
        tasks::until_state(client, &task.name, TaskState::Running).await?;
        lost.push((worker, task, assign));
    }
    let (patient, task, assign) = lost.pop().unwrap();
    let (impatient, other, _) = lost.pop().unwrap();
    drop((patient, impatient));
    tasks::until_state(client, &other.name, TaskState::Queued).await?;
    assert_eq!(tasks::get(client, &task.name).await?.status.unwrap().state(), TaskState::Running);
    let running = vec![raw::running(&assign, 0, 0)];
    let mut back = RawWorker::join(client, Hello { running, ..raw::hello("patient", "patient", 1) }).await?;
    back.succeed(&assign, 0, "done");
    assert!(back.result_ack().await?);
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1));
    Ok(())
}

/// A worker behind a proxy, whose task waits for an answer.
struct Far {
    cluster: Cluster,
    proxy: Proxy,
    _worker: WorkerHandle,
    task: v1::Task,
}

impl Far {
    async fn start(backend: Backend, reconnect_grace: Duration) -> Result<Self> {
        let mut setup = Setup::new(backend);
        setup.timing.heartbeat = Duration::from_millis(100);
        setup.timing.heartbeat_timeout = Duration::from_secs(10);
        setup.timing.reconnect_grace = reconnect_grace;
        let cluster = Cluster::start_with(setup).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let proxy = Proxy::start(cluster.addr()).await?;
        let state = cluster.folder().join("far");
        let worker = WorkerHandle::start(cluster.worker_options(proxy.addr(), "echo", "far", 1, state)?);
        let steps = [Step::Ask("go?".into()), Step::Succeed("done".into())];
        let task = tasks::create(client, tasks::scripted("echo", steps)).await?;
        tasks::until_state(client, &task.name, TaskState::InputRequired).await?;
        Ok(Self { cluster, proxy, _worker: worker, task })
    }
}

#[tokio::test]
async fn silent_worker_is_lost_disconnected_one_returns() -> Result<()> {
    let far = Far::start(Backend::Sqlite, Duration::from_secs(5)).await?;
    let Far { cluster, proxy, task, .. } = &far;
    let client = cluster.client();
    proxy.freeze();
    tasks::until_state(client, &task.name, TaskState::Queued).await?;
    let _near = cluster.worker("echo", "near", 1)?;
    tasks::until(client, &task.name, |status| status.worker == "near" && !status.pending_input.is_empty())
        .await?;
    tasks::answer(client, &task.name, "yes").await?;
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    assert_eq!(status.worker.as_str(), "near");
    assert_eq!(status.attempt, 2);
    proxy.open();
    // It has abandoned the old attempt, and its slot is free.
    let only = tasks::create(client, tasks::task_on("far")).await?;
    let status = tasks::ended(client, &only.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    assert_eq!(status.worker.as_str(), "far");
    history::check(client, true).await?.check()
}

/// Something between worker and control plane vanishes without a word, such as the machine of a standby.
#[tokio::test]
async fn worker_on_a_dead_connection_opens_another() -> Result<()> {
    // Less than keepalive needs to give up a connection.
    let far = Far::start(Backend::Memory, Duration::from_secs(15)).await?;
    let Far { cluster, proxy, task, .. } = &far;
    let client = cluster.client();
    let epoch = async || anyhow::Ok(tasks::workers(client).await?.first().map(|worker| worker.epoch));
    let before = epoch().await?;
    proxy.strand();
    tasks::eventually("another session", async || Ok(epoch().await? > before)).await?;
    tasks::answer(client, &task.name, "yes").await?;
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(
        (status.state(), status.attempt, status.worker_losses),
        (TaskState::Succeeded, 1, 0),
        "{status:?}"
    );
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn short_disconnect_changes_nothing() -> Result<()> {
    let mut setup = Setup::new(Backend::Memory);
    setup.timing.reconnect_grace = Duration::from_secs(60);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let proxy = Proxy::start(cluster.addr()).await?;
    let state = cluster.folder().join("far");
    let _far = WorkerHandle::start(cluster.worker_options(proxy.addr(), "echo", "far", 1, state)?);
    let mut steps = vec![Step::Ask("go?".into())];
    steps.extend((1..=500).flat_map(|number| [output::line(number, 500), Step::Delay(tasks::millis(2))]));
    let task = tasks::create(client, tasks::scripted("echo", steps)).await?;
    tasks::until_state(client, &task.name, TaskState::InputRequired).await?;
    let worker = async || Ok::<_, anyhow::Error>(tasks::workers(client).await?.into_iter().next().unwrap());
    let cut = async || {
        let epoch = worker().await?.epoch;
        proxy.cut();
        tasks::eventually("the end of the session", async || Ok(!worker().await?.connected)).await?;
        proxy.open();
        tasks::eventually("a newer session", async || {
            let worker = worker().await?;
            Ok(worker.connected && worker.epoch > epoch)
        })
        .await
    };
    for _ in 0..3 {
        cut().await?;
    }
    // And while it sends messages all the time.
    tasks::answer(client, &task.name, "yes").await?;
    for _ in 0..3 {
        cut().await?;
    }
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    assert_eq!(status.attempt, 1);
    assert_eq!(status.worker_losses, 0);
    assert_eq!(tasks::outputs(&tasks::log(client, &task.name).await?).len(), 500);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn task_that_loses_workers_is_quarantined() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut task = tasks::task("echo");
    task.spec.get_or_insert_default().retry =
        Some(v1::RetryPolicy { max_worker_losses: Some(1), ..Default::default() });
    let task = tasks::create(client, task).await?;
    for worker in ["a", "b"] {
        let mut hand = RawWorker::join(client, raw::hello("echo", worker, 1)).await?;
        hand.take().await?;
        tasks::until(client, &task.name, |s| s.state() == TaskState::Running && s.worker == worker).await?;
        let name = rota_proto::names::worker(tasks::NAMESPACE, worker);
        let request = v1::ReportWorkerDeathRequest { name, message: "killed".into(), ..Default::default() };
        assert_eq!(client.report_worker_death(request).await?.freed_tasks, 1);
    }
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.failure.unwrap().class(), v1::FailureClass::Quarantined);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn ended_session_blocks_no_task() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    tasks::connected(client, "one").await?;
    // The store has a newer session of another process, which the control plane has not observed.
    let newer = OpenSession {
        namespace: tasks::NAMESPACE.parse()?,
        worker: "one".parse()?,
        agent: "echo".parse()?,
        instance: "another".to_owned(),
        replica: "another".to_owned(),
        running: Vec::new(),
        last: None,
        takes_name: true,
    };
    let store = cluster.store().context("no store")?;
    store.apply(vec![Command::OpenSession(newer)]).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    // The first one is rejected when it reconnects under that name.
    let _other = cluster.worker("echo", "two", 1)?;
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    history::check(client, true).await?.check()
}

/// Of two processes with one name the newer one keeps it. The other ends its attempts and exits.
#[tokio::test]
async fn worker_with_taken_name_exits() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let pid = cluster.folder().join("pid");
    // The first attempt never ends, the second one does.
    let shell = format!(
        "[ $ROTA_ATTEMPT = 2 ] && exit; echo $$ > {0}.new; mv {0}.new {0}; sleep 100000",
        pid.display()
    );
    let runtime = v1::runtime::Kind::Command(v1::CommandRuntime { shell, ..Default::default() });
    tasks::agent(client, "echo", v1::Runtime { kind: Some(runtime) }, &[]).await?;
    let first = cluster.worker_in("echo", "twin", 1, cluster.folder().join("first"))?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    tasks::eventually("its program", async || Ok(pid.exists())).await?;
    let program = std::fs::read_to_string(&pid)?.trim().to_owned();
    let proc = std::path::Path::new("/proc").join(program);
    assert!(proc.exists());
    let second = cluster.worker_in("echo", "twin", 1, cluster.folder().join("second"))?;
    let error = first.end().await.unwrap_err().downcast::<rota_testkit::worker::Error>()?;
    assert!(matches!(error, rota_testkit::worker::Error::Replaced(name) if name == "twin"));
    assert!(!proc.exists(), "its program is still there");
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    assert_eq!(status.attempt, 2);
    assert_eq!(status.worker_losses, 1);
    assert!(tasks::notices(&tasks::log(client, &task.name).await?).is_empty());
    second.drain().await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn workers_show_cpu_and_memory() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    // It sends no heartbeats but these.
    let worker = RawWorker::join_silent(client, raw::hello("echo", "one", 1)).await?;
    let sent_and_shown =
        [((0.25, 3 << 30), (0.25, 3 << 30)), ((f64::NAN, -1), (0.0, 0)), ((7.0, 1), (1.0, 1))];
    for ((cpu, memory_bytes), shown) in sent_and_shown {
        tasks::eventually("what the worker has sent", async || {
            worker.send(Outgoing::Heartbeat(WorkerHeartbeat { cpu, memory_bytes }));
            let workers = tasks::workers(client).await?;
            Ok(workers.iter().any(|one| (one.cpu, one.memory_bytes) == shown))
        })
        .await?;
    }
    Ok(())
}
