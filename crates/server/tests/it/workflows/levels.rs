//! Workflows in workflows in workflows: what reruns take over at each level, which of them are dead letters, and cancellation.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::{Value, json};

use super::nested::nested;
use super::{Api, WORKFLOWS, echoes};

const REJECTED: &str = "REJECT";
const APPROVED: &str = "APPROVE";

fn id(workflow: &Value) -> &str {
    workflow["uid"].as_str().unwrap_or_default()
}

/// Returns a workflow of three levels, each of which has a task before the workflow that is its step.
fn three_levels() -> Value {
    let innermost = json!({
        "steps": [
            { "name": "build", "task": echoes("c") },
            { "name": "ask", "needs": [{ "step": "build" }], "approval": { "prompt": "Release?" } },
        ],
        "outputs": { "text": "${{ steps.build.result.text }}" },
    });
    let around = |text: &str, inner: Value| {
        json!({
            "steps": [
                { "name": "before", "task": echoes(text) },
                { "name": "call", "needs": [{ "step": "before" }], "workflow": { "spec": inner } },
            ],
            "outputs": { "text": "${{ steps.before.result.text }}${{ steps.call.result.text }}" },
        })
    };
    around("a", around("b", innermost))
}

/// Returns the workflows of all levels, from the outermost on, once the innermost asks.
async fn levels(api: &Api, outermost: &str) -> Result<Vec<String>> {
    let mut all = vec![outermost.to_owned()];
    for _ in 0..2 {
        let around = all.last().context("a level")?.clone();
        tasks::eventually("the next level", async || Ok(nested(api, &around).await?.len() == 1)).await?;
        let inner = nested(api, &around).await?;
        all.push(id(&inner[0]).to_owned());
    }
    api.until_step(&all[2], "ask", "RUNNING").await?;
    Ok(all)
}

async fn decide(api: &Api, of: &str, decision: &str) -> Result<()> {
    let body = json!({ "step": "ask", "decision": format!("STEP_DECISION_{decision}") });
    let (status, decided) = api.post(&format!("{WORKFLOWS}/{of}:decide"), &body).await?;
    anyhow::ensure!(status == StatusCode::OK, "{decided}");
    Ok(())
}

async fn dead_letters(api: &Api) -> Result<Vec<String>> {
    let list = api.get(&format!("{WORKFLOWS}?filter.deadLetters=true")).await?;
    Ok(list["workflows"].as_array().into_iter().flatten().map(|one| id(one).to_owned()).collect())
}

#[tokio::test]
async fn rerun_continues_at_each_of_three_levels() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let first = api.create("levels", three_levels()).await?;
        let failed = levels(&api, id(&first)).await?;
        decide(&api, &failed[2], REJECTED).await?;
        for level in &failed {
            assert_eq!(api.ended(level).await?["status"]["state"], "WORKFLOW_STATE_FAILED");
        }
        assert_eq!(dead_letters(&api).await?, [id(&first)], "those within belong to it");

        let path = format!("{WORKFLOWS}/{}:rerun", id(&first));
        let (status, second) = api.post(&path, &json!({ "reuseResults": true })).await?;
        assert_eq!(status, StatusCode::OK, "{second}");
        let again = levels(&api, id(&second)).await?;
        for (level, before) in again.iter().zip(&failed) {
            assert_eq!(api.workflow(level).await?["rerunOf"], before.as_str());
            assert_eq!(api.workflow(before).await?["status"]["rerun"], level.as_str());
        }
        for (level, step) in again.iter().zip(["before", "before", "build"]) {
            assert_eq!(api.step(level, step).await?["reused"], true, "{step}");
        }
        assert!(dead_letters(&api).await?.is_empty(), "it is run again");
        decide(&api, &again[2], REJECTED).await?;
        api.ended(id(&second)).await?;
        assert_eq!(dead_letters(&api).await?, [id(&second)], "it has failed again");

        let path = format!("{WORKFLOWS}/{}:rerun", id(&second));
        let (status, third) = api.post(&path, &json!({ "reuseResults": true })).await?;
        assert_eq!(status, StatusCode::OK, "{third}");
        let again = levels(&api, id(&third)).await?;
        decide(&api, &again[2], APPROVED).await?;
        let ended = api.ended(id(&third)).await?;
        assert_eq!(ended["status"]["outputs"]["text"], "abc", "{ended}");
        let made = api.get("/api/v1/namespaces/default/tasks?pageSize=100").await?;
        assert_eq!(made["tasks"].as_array().map(Vec::len), Some(3), "no task has run twice");
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn cancellation_reaches_three_levels_after_a_kill() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let outermost = api.create("levels", three_levels()).await?;
    let all = levels(&api, id(&outermost)).await?;
    drop(worker);
    cluster.kill().await;
    cluster.restart().await?;
    let api = Api::new(&cluster)?;
    let (status, cancelled) = api.post(&format!("{WORKFLOWS}/levels:cancel"), &json!({})).await?;
    assert_eq!(status, StatusCode::OK, "{cancelled}");
    for level in &all {
        assert_eq!(api.ended(level).await?["status"]["state"], "WORKFLOW_STATE_CANCELLED");
    }
    assert_eq!(api.step(&all[2], "ask").await?["state"], "STEP_STATE_CANCELLED");
    assert!(dead_letters(&api).await?.is_empty(), "nothing has failed");
    Ok(())
}
