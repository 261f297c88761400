//! Sizes of what workflows read and what callers send.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS, echoes};

/// Returns the message with which a workflow has failed.
async fn failure(api: &Api, alias: &str, spec: Value) -> Result<String> {
    api.create(alias, spec).await?;
    let ended = api.ended(alias).await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{}", ended["status"]);
    Ok(ended["status"]["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn values_of_many_steps_are_bounded_together() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let steps = |count: usize| -> Vec<Value> {
            let step = |index: usize| json!({ "name": format!("s{index}"), "wait": { "duration": "0s" }, "outputs": { "text": "${{ inputs.text }}" } });
            (0..count).map(step).collect()
        };
        let sizes = |count: usize| {
            let size = |index: usize| format!("size(steps.s{index}.result.text)");
            format!("${{{{ {} }}}}", (0..count).map(size).collect::<Vec<_>>().join(" + "))
        };
        let spec = |count: usize| {
            json!({
                "inputs": { "text": "x".repeat(60 << 10) }, "steps": steps(count), "outputs": { "size": sizes(count) },
            })
        };
        api.create("few", spec(16)).await?;
        let few = api.ended("few").await?;
        assert_eq!(few["status"]["outputs"]["size"], f64::from(16 * (60 << 10)), "{}", few["status"]);
        let why = failure(&api, "many", spec(20)).await?;
        assert!(why.contains("values of the steps that are read have more than 1048576 bytes"), "{why}");

        // The last result of a step counts as those before it do.
        let steps = json!([
            { "name": "fan", "task": echoes("${{ inputs.text }}"), "forEach": { "items": "[1, 2]" } },
            { "name": "end", "needs": [{ "step": "fan" }], "task": echoes("${{ size(steps.fan.results) }}") },
        ]);
        let spec = json!({ "inputs": { "text": "x".repeat(40 << 10) }, "steps": steps });
        let why = failure(&api, "two", spec).await?;
        assert!(why.contains("results of step fan have more than 65536 bytes"), "{why}");
    }
    Ok(())
}

#[tokio::test]
async fn pages_of_workflows_have_a_limited_size() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let api = Api::new(&cluster)?;
        let labels: serde_json::Map<_, _> =
            (0..60).map(|index| (format!("label{index}"), "x".repeat(256).into())).collect();
        let spec = json!({ "steps": [{ "name": "ask", "approval": { "prompt": "?" } }] });
        let count = 80;
        for _ in 0..count {
            let (status, made) = api.post(WORKFLOWS, &json!({ "labels": labels, "spec": spec })).await?;
            assert_eq!(status, StatusCode::OK, "{made}");
        }
        let (mut found, mut token, mut pages) = (std::collections::BTreeSet::new(), String::new(), 0);
        loop {
            let page = api.get(&format!("{WORKFLOWS}?pageSize=1000&pageToken={token}")).await?;
            let workflows = page["workflows"].as_array().cloned().unwrap_or_default();
            // In JSON they are a little larger than in the message that is measured.
            assert!(page.to_string().len() < 2 << 20, "{} bytes", page.to_string().len());
            pages += 1;
            for workflow in workflows {
                assert!(found.insert(workflow["uid"].as_str().context("an id")?.to_owned()));
            }
            match page["nextPageToken"].as_str() {
                Some(next) => next.clone_into(&mut token),
                None => break,
            }
        }
        assert_eq!((found.len(), pages), (count, 2));
    }
    Ok(())
}

#[tokio::test]
async fn damaged_spec_fails_its_step() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let steps = json!([
        { "name": "ask", "approval": { "prompt": "?" } },
        { "name": "next", "needs": [{ "step": "ask" }], "wait": { "duration": "0s" } },
    ]);
    let api = Api::new(&cluster)?;
    api.create("damaged", json!({ "steps": steps })).await?;
    api.until_step("damaged", "ask", "RUNNING").await?;
    cluster.kill().await;
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute("UPDATE step_specs SET body = x'ff' WHERE step = 1", [])?, 1);
    drop(database);
    cluster.restart().await?;
    let api = Api::new(&cluster)?;
    let decide = json!({ "step": "ask", "decision": "STEP_DECISION_APPROVE" });
    assert_eq!(api.post(&format!("{WORKFLOWS}/damaged:decide"), &decide).await?.0, StatusCode::OK);
    let ended = api.ended("damaged").await?;
    assert_eq!(ended["status"]["message"], "step next: its spec cannot be decoded", "{ended}");
    Ok(())
}
