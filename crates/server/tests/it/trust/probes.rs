//! HTTP probes of a kubelet.

use anyhow::{Context, Result};
use rota_testkit::{Backend, Cluster, Setup};

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
