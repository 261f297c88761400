//! How a control plane tells how it fares: to people, to probes, to load balancers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use rota_proto::v1::{self, LoopState, SystemState, TaskState, script_step::Kind as Step};
use rota_testkit::{Cluster, Keep, STUCK, Setup, tasks};
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

/// Status and causes of `/readyz`.
async fn ready(cluster: &Cluster) -> Result<(u16, Vec<String>)> {
    let addr = cluster.http_addr().context("it does not listen")?;
    let answer = reqwest::get(format!("http://{addr}/readyz")).await?;
    let status = answer.status().as_u16();
    let told: serde_json::Value = answer.json().await?;
    assert_eq!(told["ready"], status == 200);
    let codes = told["causes"].as_array().context("no causes")?.iter();
    Ok((status, codes.map(|cause| cause["code"].as_str().unwrap_or_default().to_owned()).collect()))
}

async fn status(cluster: &Cluster) -> Result<v1::SystemStatus> {
    Ok(cluster.client().get_system_status(v1::GetSystemStatusRequest {}).await?)
}

fn codes(status: &v1::SystemStatus) -> Vec<&str> {
    status.causes.iter().map(|cause| cause.code.as_str()).collect()
}

fn health(cluster: &Cluster) -> Result<HealthClient<tonic::transport::Channel>> {
    let options = rota_client::Options::new(format!("http://{}", cluster.addr()));
    Ok(HealthClient::new(rota_client::lazy_channel(&options)?))
}

#[tokio::test]
async fn it_counts_what_there_is() -> Result<()> {
    let mut cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client().clone();
    let fresh = status(&cluster).await?;
    assert_eq!((fresh.state(), codes(&fresh)), (SystemState::Healthy, vec![]));
    let store = fresh.store.clone().unwrap();
    assert_eq!((store.answers, store.last_commit_time), (true, None));
    let (started, answered) = (fresh.start_time.unwrap(), fresh.server_time.unwrap());
    assert!(started.seconds > 0 && answered.seconds >= started.seconds);

    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let worker = cluster.worker("echo", "one", 1)?;
    let asks = tasks::create(&client, tasks::scripted("echo", [Step::Ask("go?".into())])).await?;
    tasks::until_state(&client, &asks.name, TaskState::InputRequired).await?;
    tasks::create(&client, tasks::task("echo")).await?;
    tasks::create(&client, tasks::task("nobody")).await?;
    tasks::eventually("the counts", async || {
        let now = status(&cluster).await?;
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

    // What whoever starts workers cannot do needs a person's look, and no less so for the system.
    let report = |message: &str| v1::ReportAgentRequest {
        name: "namespaces/default/agents/echo".into(),
        message: message.into(),
    };
    client.report_agent(report("no such image")).await?;
    let now = status(&cluster).await?;
    assert_eq!((now.state(), codes(&now)), (SystemState::Degraded, vec!["workers_cannot_start"]));
    assert!(
        now.causes[0].message.contains("default/echo") && now.causes[0].message.contains("no such image")
    );
    client.report_agent(report("")).await?;
    assert_eq!(status(&cluster).await?.state(), SystemState::Healthy);
    worker.stop().await?;
    cluster.stop().await.context("it did not end")?;
    Ok(())
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_seen_everywhere_and_its_return_too() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Keep::Sqlite) };
    let skew = Arc::clone(&setup.skew);
    let cluster = Cluster::start_with(setup).await?;
    let mut probe = health(&cluster)?;
    let asked = |service: &str| HealthCheckRequest { service: service.into() };
    let mut watched = probe.watch(asked(SERVICES[1])).await?.into_inner();
    let mut stranger = probe.watch(asked("no.such.Service")).await?.into_inner();
    let next = async |stream: &mut tonic::Streaming<tonic_health::pb::HealthCheckResponse>| {
        anyhow::Ok(stream.message().await?.context("it ended")?.status())
    };
    assert_eq!(next(&mut stranger).await?, ServingStatus::ServiceUnknown);
    assert_eq!(probe.check(asked("no.such.Service")).await.unwrap_err().code(), tonic::Code::NotFound);

    assert_eq!(next(&mut watched).await?, ServingStatus::Serving);
    assert_eq!(ready(&cluster).await?, (200, vec![]));
    for round in [STUCK, 0] {
        skew.store(round, Ordering::Relaxed);
        let well = round == 0;
        tasks::eventually("the store's state", async || {
            Ok(status(&cluster).await?.store.unwrap().answers == well)
        })
        .await?;
        let now = status(&cluster).await?;
        let expected = if well { SystemState::Healthy } else { SystemState::Error };
        assert_eq!((now.state(), codes(&now).contains(&"store")), (expected, !well));
        assert_eq!(ready(&cluster).await?.0, if well { 200 } else { 503 });
        let serving = if well { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            assert_eq!(probe.check(asked(service)).await?.into_inner().status(), serving, "{service}");
        }
        assert_eq!(next(&mut watched).await?, serving);
        let addr = cluster.http_addr().context("it does not listen")?;
        // Starting the process anew mends no disk: it lives.
        assert_eq!(reqwest::get(format!("http://{addr}/livez")).await?.status(), 200);
    }
    Ok(())
}

#[tokio::test]
async fn while_it_stops_it_says_so() -> Result<()> {
    let mut setup = Setup { http: true, ..Setup::new(Keep::Memory) };
    setup.timing.shutdown_grace = std::time::Duration::from_secs(60);
    let skew = Arc::clone(&setup.skew);
    let mut cluster = Cluster::start_with(setup).await?;
    assert_eq!(ready(&cluster).await?, (200, vec![]));
    // A call that is under way holds up the end.
    skew.store(STUCK, Ordering::Relaxed);
    let client = cluster.client().clone();
    let made = async move { tasks::create(&client, tasks::task("nobody")).await };
    let under_way = rota_telemetry::spawn("create", rota_telemetry::OnExit::Done, made);
    tasks::eventually("that it is on its way", async || {
        Ok(!status(&cluster).await?.store.context("no store")?.answers)
    })
    .await?;
    cluster.begin_stop();
    tasks::eventually("that it is not ready, and why", async || {
        let (status, codes) = ready(&cluster).await?;
        Ok(status == 503 && codes.contains(&"stopping".to_owned()))
    })
    .await?;
    skew.store(0, Ordering::Relaxed);
    under_way.await??;
    let ended = cluster.ended().await.context("it did not end")??;
    assert_eq!(ended, rota_server::Ended::InOrder);
    Ok(())
}

#[tokio::test]
async fn a_loop_that_fails_is_told_of_until_it_succeeds() -> Result<()> {
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let (one, other) = (made()?, made()?);
    let tls = Some((one.cert.pem(), one.signing_key.serialize_pem()));
    let cluster = Cluster::start_with(Setup { tls, ..Setup::new(Keep::Memory) }).await?;
    assert_eq!(status(&cluster).await?.state(), SystemState::Healthy);
    // Half of another pair.
    let key = cluster.folder().join("tls.key");
    for (text, state) in [
        (other.signing_key.serialize_pem(), SystemState::Degraded),
        (one.signing_key.serialize_pem(), SystemState::Healthy),
    ] {
        std::fs::write(&key, text)?;
        tasks::eventually(
            "what it makes of the files",
            async || Ok(status(&cluster).await?.state() == state),
        )
        .await?;
        let now = status(&cluster).await?;
        let one = now.loops.iter().find(|one| one.name == "certificate").context("no such loop")?;
        let well = state == SystemState::Healthy;
        assert_eq!((one.state() == LoopState::Failing, one.error.is_empty()), (!well, well), "{one:?}");
        assert_eq!(codes(&now), if well { vec![] } else { vec!["loop_failing"] });
    }
    // What is part of another program leaves the log to it.
    let refused = cluster.client().get_log_filter(v1::GetLogFilterRequest {}).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("LOG_NOT_OURS"));
    for (filter, reason) in [("", "INVALID_FIELD"), ("a=b=c", "INVALID_FIELD"), ("info", "LOG_NOT_OURS")] {
        let request = v1::SetLogFilterRequest { filter: filter.into() };
        let refused = cluster.client().set_log_filter(request).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some(reason), "{filter}");
    }
    Ok(())
}
