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
