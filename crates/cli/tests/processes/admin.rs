//! `rota admin`: status, background tasks, log filter.

use anyhow::Result;
use rota_testkit::tasks;

use crate::process::Process;
use crate::{Fixture, Graces, workload};

#[tokio::test]
async fn admin_shows_status_and_sets_log_filter() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    workload::agent(&fixture.client()?).await?;
    // A slow start may degrade it for a while.
    tasks::eventually("a healthy control plane", async || {
        let status = fixture.rota(&["admin", "status"]).await.success();
        Ok(["healthy", "reachable", "0 on workers"].iter().all(|words| status.contains(words)))
    })
    .await?;
    tasks::eventually("the same for programs", async || {
        let status = fixture.rota(&["admin", "status", "-o", "json"]).await.json();
        Ok(status["state"] == "SYSTEM_STATE_HEALTHY")
    })
    .await?;

    let loops = fixture.rota(&["admin", "background-tasks", "-o", "json"]).await.json();
    let names: Vec<_> = loops["backgroundTasks"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(
        names,
        [
            "alerts",
            "artifacts",
            "breakers",
            "commits",
            "metrics-history",
            "prune",
            "schedules",
            "search-index",
            "space",
            "timer",
            "token-file"
        ]
    );
    tasks::eventually("the background tasks' first success", async || {
        let table = fixture.rota(&["admin", "background-tasks"]).await.success();
        let did = |name: &str| table.lines().any(|line| line.starts_with(name) && line.contains(" ago "));
        Ok(did("commits") && did("prune"))
    })
    .await?;

    let text = fixture.rota(&["admin", "reindex"]).await.success();
    assert!(text.contains("built again up to revision"), "{text}");
    fixture.server_mut().prints("the search index is built again, as requested").await;

    assert_eq!(fixture.rota(&["admin", "log-filter"]).await.success(), "info");
    let refused = fixture.rota(&["admin", "log-filter", "rota_server=loud"]).await;
    refused.failed(1, &["filter", "loud"]);
    assert_eq!(fixture.rota(&["admin", "log-filter"]).await.success(), "info");
    assert_eq!(fixture.rota(&["admin", "log-filter", "debug"]).await.success(), "debug");
    // At this level the transport logs every call, at the previous one nothing.
    fixture.rota(&["admin", "status"]).await.success();
    fixture.server_mut().prints("DEBUG").await;
    Ok(())
}

#[tokio::test]
async fn dev_lists_background_task_of_workers() -> Result<()> {
    let fixture = Fixture::bare();
    let command = fixture.command(&["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let mut dev = Process::start("dev", command);
    dev.prints("rota dev is running at").await;
    tasks::eventually("the background task of its workers", async || {
        let loops = fixture.rota(&["admin", "background-tasks", "-o", "json"]).await.json();
        let all = loops["backgroundTasks"].as_array().unwrap().iter();
        Ok(all.clone().any(|one| one["name"] == "workers" && one["lastSuccessTime"].is_string()))
    })
    .await
}

#[tokio::test]
async fn worker_ends_when_its_token_is_revoked() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    workload::agent(&fixture.client()?).await?;
    let worker = fixture.worker(workload::AGENT, "first", 1).await?;
    let table = fixture.rota(&["admin", "worker-tokens"]).await.success();
    let row = table.lines().find(|line| line.contains(" first ")).unwrap_or_else(|| panic!("{table}"));
    let id = row.split_whitespace().next().unwrap();
    let listed = fixture.rota(&["admin", "worker-tokens", "-A", "-o", "json"]).await.json();
    assert_eq!(listed["workerTokens"][0]["sessions"], 1, "{listed}");
    fixture.rota(&["admin", "revoke-worker-token", id]).await.success();
    let ended = worker.ended().await;
    assert!(!ended.status.success() && ended.output.contains("was revoked"), "{}", ended.output);
    fixture.rota(&["admin", "revoke-worker-token", id]).await.failed(4, &["there is no worker token"]);
    Ok(())
}
