//! `rota bulk`, `rota metrics`, `rota costs` and `rota admin alerts`: many tasks at a time, and what was and is.

use anyhow::{Context, Result};
use rota_proto::v1::{self, script_step::Kind as Step};
use rota_testkit::tasks;

use crate::{Fixture, Graces, workload};

async fn run(fixture: &Fixture, name: &str, owner: &str) {
    let args = ["run", "--detach", "--agent", "missing", "--name", name, "--owner", owner];
    fixture.rota(&[&args[..], &["--command", "--", "true"]].concat()).await.success();
}

async fn state(fixture: &Fixture, name: &str) -> Result<String> {
    let task = fixture.rota(&["get", "task", name, "-o", "json"]).await.json();
    Ok(task["status"]["state"].as_str().context("no state")?.to_owned())
}

#[tokio::test]
async fn tasks_that_match_are_counted_then_cancelled() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    for name in ["one", "two"] {
        run(&fixture, name, "ada").await;
    }
    run(&fixture, "other", "bob").await;
    fixture.rota(&["bulk", "cancel"]).await.failed(2, &["no filter", "--all"]);
    let counted = fixture.rota(&["bulk", "cancel", "--owner", "ada"]).await.success();
    assert_eq!(counted, "cancel: 2 tasks match");
    let counted = fixture.rota(&["bulk", "cancel", "--owner", "ada", "-o", "json"]).await.json();
    assert_eq!(counted, serde_json::json!({"action": "cancel", "matched": 2}));
    assert_eq!(state(&fixture, "one").await?, "TASK_STATE_PENDING");
    let done =
        fixture.rota(&["bulk", "cancel", "--owner", "ada", "--reason", "wrong", "--yes"]).await.success();
    assert_eq!(done, "cancel: 2 of 2 tasks changed");
    assert_eq!(state(&fixture, "one").await?, "TASK_STATE_CANCELLED");
    assert_eq!(state(&fixture, "other").await?, "TASK_STATE_PENDING");
    let priority = ["bulk", "priority", "--priority", "8", "--state", "pending", "--yes"];
    assert_eq!(fixture.rota(&priority).await.success(), "priority: 1 of 1 tasks changed");
    let retried = fixture.rota(&["bulk", "retry", "--state", "cancelled", "--yes"]).await.success();
    assert_eq!(retried, "retry: 2 of 2 tasks changed");
    assert_eq!(state(&fixture, "one").await?, "TASK_STATE_PENDING");
    Ok(())
}

#[tokio::test]
async fn metrics_and_alerts_are_printed() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    workload::agent(&fixture.client()?).await?;
    run(&fixture, "one", "ada").await;
    tasks::eventually("the created task", async || {
        let history = fixture.rota(&["metrics", "-A", "-o", "json"]).await.json();
        let points = history["points"].as_array().cloned().unwrap_or_default();
        Ok(points.iter().filter_map(|point| point["createdTasks"].as_str()).eq(["1"]))
    })
    .await?;
    let table = fixture.rota(&["metrics", "--all-namespaces", "--since", "2d"]).await.success();
    assert!(table.starts_with("TIME") && table.lines().count() == 2, "{table}");
    let alerts = fixture.rota(&["admin", "alerts", "-A", "-o", "json"]).await.json();
    assert_eq!(alerts["alerts"].as_array().map(Vec::len), Some(0), "{alerts}");
    Ok(())
}

#[tokio::test]
async fn costs_are_printed() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    tasks::agent(&client, "scripted", tasks::script([]), &[]).await?;
    let _worker = fixture.worker("scripted", "one", 1).await?;
    let usage = v1::ScriptUsage { cost_micro_usd: 1_500_000, input_tokens: 7, output_tokens: 3 };
    let script = [Step::Usage(usage), Step::Succeed("done".into())];
    let name = tasks::create(&client, tasks::scripted("scripted", script)).await?.name;
    tasks::ended(&client, &name).await?;
    tasks::eventually("the cost", async || {
        let spending = fixture.rota(&["costs", "-o", "json"]).await.json();
        let total = &spending["total"];
        Ok(total["costMicroUsd"] == "1500000" && total["succeededTasks"] == "1")
    })
    .await?;
    let tables = fixture.rota(&["costs", "--days", "1", "--agent", "scripted"]).await.success();
    let firsts: Vec<_> = tables.lines().filter_map(|line| line.split_whitespace().next()).collect();
    // The day is not named, since it may have begun meanwhile.
    assert_eq!(firsts.first(), Some(&"DAY"), "{tables}");
    assert!(firsts.ends_with(&["total", "AGENT", "scripted", "MODEL", "unknown"]), "{tables}");
    fixture.rota(&["costs", "--days", "31"]).await.failed(2, &["--days"]);
    Ok(())
}
