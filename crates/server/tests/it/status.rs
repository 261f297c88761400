//! Status of the control plane: for users, probes and load balancers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use rota_proto::v1::{self, BackgroundTaskState, SystemState, TaskState, script_step::Kind as Step};
use rota_testkit::{BLOCK_SKEW, Backend, Cluster, Setup, tasks};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SERVICES: &[&str] = &[
    "",
    "rota.v1.TaskService",
    "rota.v1.AgentService",
    "rota.v1.AdminService",
    "rota.worker.v1.WorkerService",
];

/// Returns HTTP status and causes of `/readyz`.
async fn readiness(cluster: &Cluster) -> Result<(u16, Vec<String>)> {
    let addr = cluster.http_addr().context("it does not listen")?;
    let answer = reqwest::get(format!("http://{addr}/readyz")).await?;
    let status = answer.status().as_u16();
    let status_page: serde_json::Value = answer.json().await?;
    assert_eq!(status_page["ready"], status == 200);
    let codes = status_page["causes"].as_array().context("no causes")?.iter();
    Ok((status, codes.map(|cause| cause["code"].as_str().unwrap_or_default().to_owned()).collect()))
}

async fn system_status(cluster: &Cluster) -> Result<v1::SystemStatus> {
    Ok(cluster.client().get_system_status(v1::GetSystemStatusRequest {}).await?)
}

fn cause_codes(status: &v1::SystemStatus) -> Vec<&str> {
    status.causes.iter().map(|cause| cause.code.as_str()).collect()
}

fn health_client(cluster: &Cluster) -> Result<HealthClient<tonic::transport::Channel>> {
    let options = rota_testkit::client::Options::new(format!("http://{}", cluster.addr()));
    Ok(HealthClient::new(rota_testkit::client::lazy_channel(&options)?))
}

#[tokio::test]
async fn status_counts_tasks_and_workers() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    let fresh = system_status(&cluster).await?;
    assert_eq!(fresh.state(), SystemState::Healthy);
    assert!(cause_codes(&fresh).is_empty());
    let store = fresh.store.clone().unwrap();
    assert!(store.available);
    let (started, answered) = (fresh.start_time.unwrap(), fresh.server_time.unwrap());
    assert!(started.seconds > 0 && answered.seconds >= started.seconds);

    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let worker = cluster.worker("echo", "one", 1)?;
    let asks = tasks::create(&client, tasks::scripted("echo", [Step::Ask("go?".into())])).await?;
    tasks::until_state(&client, &asks.name, TaskState::InputRequired).await?;
    tasks::create(&client, tasks::task("echo")).await?;
    tasks::create(&client, tasks::task("missing")).await?;
    tasks::eventually("the counts", async || {
        let now = system_status(&cluster).await?;
        let wanted = v1::SystemCounts {
            workers: 1,
            sessions: 1,
            pending_tasks: 1,
            queued_tasks: 1,
            input_required_tasks: 1,
            ..Default::default()
        };
        Ok(now.counts == Some(wanted) && now.store.is_some_and(|store| store.last_commit_time.is_some()))
    })
    .await?;

    // A pool that cannot start workers needs attention, for the agent as for the whole system.
    let report = |message: &str| v1::ReportAgentRequest {
        name: "namespaces/default/agents/echo".into(),
        message: message.into(),
        ..Default::default()
    };
    client.report_agent(report("no such image")).await?;
    let now = system_status(&cluster).await?;
    assert_eq!(now.state(), SystemState::Degraded);
    assert_eq!(cause_codes(&now), vec!["workers_cannot_start"]);
    assert!(
        now.causes[0].message.contains("default/echo") && now.causes[0].message.contains("no such image")
    );
    client.report_agent(report("")).await?;
    assert_eq!(system_status(&cluster).await?.state(), SystemState::Healthy);
    worker.stop().await?;
    cluster.stop().await.context("it did not end")?;
    Ok(())
}

#[tokio::test]
async fn blocked_store_is_reported_until_recovery() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Backend::Sqlite) };
    let skew = Arc::clone(&setup.skew);
    let cluster = Cluster::start_with(setup).await?;
    let mut probe = health_client(&cluster)?;
    let asked = |service: &str| HealthCheckRequest { service: service.into() };
    let mut watched = probe.watch(asked(SERVICES[1])).await?.into_inner();
    let mut stranger = probe.watch(asked("no.such.Service")).await?.into_inner();
    let next = async |stream: &mut tonic::Streaming<tonic_health::pb::HealthCheckResponse>| {
        anyhow::Ok(stream.message().await?.context("it ended")?.status())
    };
    assert_eq!(next(&mut stranger).await?, ServingStatus::ServiceUnknown);
    assert_eq!(probe.check(asked("no.such.Service")).await.unwrap_err().code(), tonic::Code::NotFound);

    assert_eq!(next(&mut watched).await?, ServingStatus::Serving);
    assert_eq!(readiness(&cluster).await?, (200, vec![]));
    for round in [BLOCK_SKEW, 0] {
        skew.store(round, Ordering::Relaxed);
        let well = round == 0;
        let expected = if well { SystemState::Healthy } else { SystemState::Error };
        let serving = if well { ServingStatus::Serving } else { ServingStatus::NotServing };
        // Each of them checks a store that may still be slow for a while.
        tasks::eventually("the store's state", async || {
            let now = system_status(&cluster).await?;
            let mut all = now.state() == expected
                && cause_codes(&now).contains(&"store") != well
                && now.store.is_some_and(|store| store.available == well)
                && readiness(&cluster).await?.0 == if well { 200 } else { 503 };
            for service in SERVICES {
                let answer = probe.clone().check(asked(service)).await?;
                all = all && answer.into_inner().status() == serving;
            }
            Ok(all)
        })
        .await?;
        let awaited = async {
            while next(&mut watched).await? != serving {}
            anyhow::Ok(())
        };
        tokio::time::timeout(tasks::WAIT_TIMEOUT, awaited).await??;
        let addr = cluster.http_addr().context("it does not listen")?;
        // A restart of the process does not repair a disk: the process is alive.
        assert_eq!(reqwest::get(format!("http://{addr}/livez")).await?.status(), 200);
    }
    Ok(())
}

#[tokio::test]
async fn shutdown_is_reported() -> Result<()> {
    let mut setup = Setup { http: true, ..Setup::new(Backend::Memory) };
    setup.timing.shutdown_grace = std::time::Duration::from_secs(60);
    let skew = Arc::clone(&setup.skew);
    let mut cluster = Cluster::start_with(setup).await?;
    assert_eq!(readiness(&cluster).await?, (200, vec![]));
    // A call in progress delays the exit.
    skew.store(BLOCK_SKEW, Ordering::Relaxed);
    let client = cluster.client().clone();
    let made = async move { tasks::create(&client, tasks::task("missing")).await };
    let under_way = rota_telemetry::spawn("create", rota_telemetry::OnExit::Done, made);
    tasks::eventually("that it is on its way", async || {
        Ok(!system_status(&cluster).await?.store.context("no store")?.available)
    })
    .await?;
    cluster.begin_stop();
    tasks::eventually("that it is not ready, and why", async || {
        let (status, codes) = readiness(&cluster).await?;
        Ok(status == 503 && codes.contains(&"stopping".to_owned()))
    })
    .await?;
    skew.store(0, Ordering::Relaxed);
    under_way.await??;
    let ended = cluster.ended().await.context("it did not end")??;
    assert_eq!(ended, rota_server::ShutdownOutcome::Graceful);
    Ok(())
}

#[tokio::test]
async fn failing_background_task_is_reported_until_success() -> Result<()> {
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let (one, other) = (made()?, made()?);
    let tls = Some((one.cert.pem(), one.signing_key.serialize_pem()));
    let cluster = Cluster::start_with(Setup { tls, ..Setup::new(Backend::Memory) }).await?;
    assert_eq!(system_status(&cluster).await?.state(), SystemState::Healthy);
    // A certificate with the key of another pair.
    let key = cluster.folder().join("tls.key");
    for (text, state) in [
        (other.signing_key.serialize_pem(), SystemState::Degraded),
        (one.signing_key.serialize_pem(), SystemState::Healthy),
    ] {
        std::fs::write(&key, text)?;
        tasks::eventually("what it makes of the files", async || {
            Ok(system_status(&cluster).await?.state() == state)
        })
        .await?;
        let now = system_status(&cluster).await?;
        let one =
            now.background_tasks.iter().find(|one| one.name == "certificate").context("no such loop")?;
        let well = state == SystemState::Healthy;
        assert_eq!(
            (one.state() == BackgroundTaskState::Failing, one.error.is_empty()),
            (!well, well),
            "{one:?}"
        );
        assert_eq!(cause_codes(&now), if well { vec![] } else { vec!["background_task_failing"] });
    }
    // Embedded in another program, the control plane leaves the log to it.
    let refused = cluster.client().get_log_filter(v1::GetLogFilterRequest {}).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("LOG_FILTER_UNAVAILABLE"));
    for (filter, reason) in
        [("", "INVALID_FIELD"), ("a=b=c", "INVALID_FIELD"), ("info", "LOG_FILTER_UNAVAILABLE")]
    {
        let request = v1::SetLogFilterRequest { filter: filter.into() };
        let refused = cluster.client().set_log_filter(request).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some(reason), "{filter}");
    }
    Ok(())
}
