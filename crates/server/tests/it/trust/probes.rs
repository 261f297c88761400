//! HTTP probes of a kubelet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use rota_testkit::{Backend, Cluster, Setup, tasks};

#[tokio::test]
async fn probes_report_alive_and_ready() -> Result<()> {
    let setup = Setup { http: true, token: Some("open sesame".to_owned()), ..Setup::new(Backend::Sqlite) };
    let mut cluster = Cluster::start_with(setup).await?;
    let addr = cluster.http_addr().context("it does not listen")?;
    let ask = async |path: &str| {
        let answer = reqwest::get(format!("http://{addr}{path}")).await?;
        anyhow::Ok((answer.status().as_u16(), answer.text().await?))
    };
    assert_eq!(ask("/livez").await?, (200, r#"{"alive":true}"#.to_owned()));
    assert_eq!(ask("/readyz").await?, (200, r#"{"ready":true,"system":"healthy","causes":[]}"#.to_owned()));
    assert_eq!(ask("/rota.v1.TaskService/ListTasks").await?.0, 404);
    assert_eq!(cluster.stop().await, Some(rota_server::ShutdownOutcome::Graceful));
    assert!(ask("/readyz").await.is_err(), "it still answers");
    Ok(())
}

#[tokio::test]
async fn full_store_leaves_the_control_plane_ready() -> Result<()> {
    let setup = Setup { http: true, ..Setup::new(Backend::Memory) };
    let full = Arc::clone(&setup.full);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    let addr = cluster.http_addr().context("it does not listen")?;
    let ready = async || {
        let answer = reqwest::get(format!("http://{addr}/readyz")).await?;
        anyhow::Ok((answer.status().as_u16(), answer.json::<serde_json::Value>().await?))
    };
    let task = tasks::create(client, tasks::task("echo")).await?;
    full.store(true, Ordering::Relaxed);
    let refused = tasks::create(client, tasks::task("echo")).await.unwrap_err();
    assert!(format!("{refused:#}").contains("the disk is full"), "{refused:#}");
    // It answers reads, which another replica could not do better.
    let (code, body) = ready().await?;
    assert_eq!((code, &body["ready"], &body["system"]), (200, &true.into(), &"error".into()), "{body}");
    assert_eq!(body["causes"][0]["code"], "store_writes", "{body}");
    tasks::get(client, &task.name).await?;
    let metrics = reqwest::get(format!("http://{addr}/metrics")).await?.text().await?;
    let failed = metrics.lines().find(|line| line.starts_with("rota_store_write_failures_total "));
    assert!(failed.is_some_and(|line| !line.ends_with(" 0")), "{failed:?}");
    full.store(false, Ordering::Relaxed);
    tasks::create(client, tasks::task("echo")).await?;
    assert_ne!(ready().await?.1["system"], "error");
    Ok(())
}
