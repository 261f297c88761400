//! Alerts: what is wrong, for as long as it is.

use anyhow::{Context, Result};
use rota_proto::v1::{self, SystemState};
use rota_proto::worker::v1::WorkerStatus;
use rota_proto::worker::v1::session_request::Kind;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};

async fn alerts(cluster: &Cluster, namespace: &str) -> Result<Vec<v1::Alert>> {
    let request = v1::ListAlertsRequest { parent: format!("namespaces/{namespace}") };
    Ok(cluster.client().list_alerts(request).await?.alerts)
}

/// Waits until these are the codes of all alerts.
async fn until(cluster: &Cluster, codes: &[&str]) -> Result<Vec<v1::Alert>> {
    tasks::eventually(&format!("{codes:?}"), async || {
        let alerts = alerts(cluster, "default").await?;
        Ok(alerts.iter().map(|alert| alert.code.as_str()).eq(codes.iter().copied()))
    })
    .await?;
    alerts(cluster, "default").await
}

fn status(reason: &str) -> Kind {
    Kind::Status(WorkerStatus { not_ready_reason: reason.to_owned(), ..WorkerStatus::default() })
}

#[tokio::test]
async fn sick_worker_is_an_alert_until_it_is_well() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let worker = RawWorker::join(cluster.client(), raw::hello("echo", "one", 1)).await?;
    assert_eq!(alerts(&cluster, "default").await?, []);
    worker.send(status("the disk is full"));
    let first = until(&cluster, &["worker_unavailable"]).await?.pop().context("no alert")?;
    assert_eq!(first.subject, "namespaces/default/workers/one");
    assert_eq!(first.severity(), SystemState::Degraded);
    assert!(first.message.contains("the disk is full"), "{first:?}");
    // The message changes, and the problem stays.
    worker.send(status("the disk is still full"));
    tasks::eventually("the message", async || {
        Ok(alerts(&cluster, "default").await?[0].message.contains("still full"))
    })
    .await?;
    let again = alerts(&cluster, "default").await?;
    assert_eq!(again[0].since_time, first.since_time);
    assert_eq!(alerts(&cluster, "other").await?, []);
    assert_eq!(alerts(&cluster, "-").await?.len(), 1);
    worker.send(status(""));
    until(&cluster, &[]).await?;
    worker.send(status("the disk is full"));
    let later = until(&cluster, &["worker_unavailable"]).await?;
    assert!(
        later[0].since_time.as_ref().map(|at| (at.seconds, at.nanos))
            > first.since_time.map(|at| (at.seconds, at.nanos))
    );
    Ok(())
}

#[tokio::test]
async fn exhausted_budget_is_an_alert() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let budget = Some(v1::Budget { daily_micro_usd: 100, ..Default::default() });
    let name = "namespaces/default".to_owned();
    client
        .set_namespace_budget(v1::SetNamespaceBudgetRequest {
            name: name.clone(),
            budget,
            ..Default::default()
        })
        .await?;
    assert_eq!(alerts(&cluster, "default").await?, []);
    let spent_today_micro_usd = Some(100);
    let request =
        v1::CorrectSpendingRequest { name: name.clone(), spent_today_micro_usd, ..Default::default() };
    client.correct_spending(request).await?;
    let alert = until(&cluster, &["budget_exhausted"]).await?.pop().context("no alert")?;
    assert_eq!(alert.subject, name);
    assert_eq!(alerts(&cluster, "other").await?, []);
    client.set_namespace_budget(v1::SetNamespaceBudgetRequest { name, ..Default::default() }).await?;
    until(&cluster, &[]).await?;
    Ok(())
}

#[tokio::test]
async fn many_problems_elsewhere_hide_none_of_a_namespace() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let spec = tasks::agent(client, "echo", tasks::script([]), &[]).await?.spec;
    let agents = (0..21).map(|number| ("aaa", format!("a{number}")));
    for (namespace, name) in agents.chain([("zzz", "last".to_owned())]) {
        let name = format!("namespaces/{namespace}/agents/{name}");
        let agent = v1::Agent { name: name.clone(), spec: spec.clone(), ..Default::default() };
        let agent = Some(agent);
        client
            .update_agent(v1::UpdateAgentRequest { agent, allow_missing: true, ..Default::default() })
            .await?;
        let message = "no such image".to_owned();
        client.report_agent(v1::ReportAgentRequest { name, message, ..Default::default() }).await?;
    }
    let found = alerts(&cluster, "zzz").await?;
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].code, &*found[0].subject), ("workers_cannot_start", "namespaces/zzz/agents/last"));
    // A list of another namespace forgets nothing of this one.
    assert_eq!(alerts(&cluster, "aaa").await?.len(), 20);
    assert_eq!(alerts(&cluster, "zzz").await?[0].since_time, found[0].since_time);
    Ok(())
}

#[tokio::test]
async fn storage_that_takes_nothing_is_an_alert() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(cluster.client(), raw::hello("echo", "one", 1)).await?;
    tasks::create(cluster.client(), tasks::task("echo")).await?;
    worker.take().await?;
    let queued = tasks::create(cluster.client(), tasks::task("echo")).await?;
    let upload = async || {
        let part = v1::UploadPartsRequest { parent: "namespaces/default".to_owned(), data: "text".into() };
        cluster.client().artifact_service().upload_parts(tokio_stream::iter([part])).await
    };
    let (folder, aside) = (cluster.folder().join("artifacts"), cluster.folder().join("aside"));
    std::fs::rename(&folder, &aside)?;
    std::fs::write(&folder, "in place of the folder")?;
    upload().await.unwrap_err();
    let alert = until(&cluster, &["artifacts_unavailable"]).await?.pop().context("no alert")?;
    assert_eq!((alert.severity(), alert.subject.as_str()), (SystemState::Degraded, ""));
    let request = v1::ExplainTaskRequest { name: queued.name };
    let explained = cluster.client().explain_task(request).await?;
    assert_eq!(explained.causes[0].code, "artifacts_unavailable", "{explained:?}");
    std::fs::remove_file(&folder)?;
    std::fs::rename(&aside, &folder)?;
    upload().await?;
    until(&cluster, &[]).await?;
    Ok(())
}
