//! Looking after a control plane that runs: its state, its loops, its log.

use anyhow::Result;
use rota_testkit::tasks;

use crate::process::Process;
use crate::{Graces, Stage, work};

#[tokio::test]
async fn a_control_plane_tells_how_it_fares_and_logs_what_it_is_told_to() -> Result<()> {
    let mut stage = Stage::start(Graces::LONG).await?;
    work::agent(&stage.client()?).await?;
    let told = stage.rota(&["admin", "status"]).await.done();
    assert!(told.contains("healthy") && told.contains("answers") && told.contains("0 on workers"), "{told}");
    let status = stage.rota(&["admin", "status", "-o", "json"]).await.json();
    assert_eq!(status["state"], "SYSTEM_STATE_HEALTHY");

    let loops = stage.rota(&["admin", "loops", "-o", "json"]).await.json();
    let names: Vec<_> = loops["loops"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["commits", "prune", "timer", "token-file"]);
    tasks::eventually("the loops' work", async || {
        let told = stage.rota(&["admin", "loops"]).await.done();
        let did = |name: &str| told.lines().any(|line| line.starts_with(name) && line.contains(" ago "));
        Ok(did("commits") && did("prune"))
    })
    .await?;

    assert_eq!(stage.rota(&["admin", "log-filter"]).await.done(), "info");
    let refused = stage.rota(&["admin", "log-filter", "rota_server=loud"]).await;
    refused.failed(1, &["filter", "loud"]);
    assert_eq!(stage.rota(&["admin", "log-filter"]).await.done(), "info");
    assert_eq!(stage.rota(&["admin", "log-filter", "debug"]).await.done(), "debug");
    // Every call makes its transport say something at this level, and nothing at the one before.
    stage.rota(&["admin", "status"]).await.done();
    stage.server_mut().says("DEBUG").await;
    Ok(())
}

#[tokio::test]
async fn rota_dev_shows_the_loop_of_its_workers_too() -> Result<()> {
    let stage = Stage::bare();
    let command = stage.command(&["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let mut dev = Process::start("dev", command);
    dev.says("rota dev is up at").await;
    tasks::eventually("the loop of its workers", async || {
        let loops = stage.rota(&["admin", "loops", "-o", "json"]).await.json();
        let all = loops["loops"].as_array().unwrap().iter();
        Ok(all.clone().any(|one| one["name"] == "workers" && one["lastSuccessTime"].is_string()))
    })
    .await
}
