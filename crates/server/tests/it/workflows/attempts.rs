//! Attempts and timeouts of steps that are workflows, and versions of their templates.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};

use super::nested::{nested, template};
use super::{Api, WORKFLOWS, echoes, refuses_steps};

/// Decides the approval `ask` of the newest workflow that is a step, once there are so many.
async fn decide(api: &Api, alias: &str, count: usize, decision: &str) -> Result<()> {
    let body = json!({ "step": "ask", "decision": format!("STEP_DECISION_{decision}") });
    tasks::eventually(&format!("attempt {count}"), async || {
        let all = nested(api, alias).await?;
        let newest = all.first().filter(|_| all.len() == count);
        let Some(id) = newest.and_then(|one| one["uid"].as_str()) else { return Ok(false) };
        Ok(api.post(&format!("{WORKFLOWS}/{id}:decide"), &body).await?.0 == StatusCode::OK)
    })
    .await
}

#[tokio::test]
async fn failed_workflows_of_steps_run_again() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let api = Api::new(&cluster)?;
    let asks = json!({
        "steps": [{ "name": "ask", "approval": { "prompt": "Well?" } }],
        "outputs": { "approved": "${{ steps.ask.result.approved }}" },
    });
    let spec = json!({
        "steps": [{ "name": "call", "maxAttempts": 2, "workflow": { "spec": asks } }],
        "outputs": { "approved": "${{ steps.call.result.approved }}" },
    });
    api.create("twice", spec.clone()).await?;
    decide(&api, "twice", 1, "REJECT").await?;
    tasks::eventually("another attempt", async || Ok(nested(&api, "twice").await?.len() == 2)).await?;
    cluster.kill().await;
    cluster.restart().await?;
    let api = Api::new(&cluster)?;
    let explained = api.get(&format!("{WORKFLOWS}/twice:explain")).await?;
    assert!(explained.to_string().contains("1 of 1 workflows are open, in attempt 2 of 2"), "{explained}");
    decide(&api, "twice", 2, "APPROVE").await?;
    let ended = api.ended("twice").await?;
    assert_eq!(ended["status"]["outputs"]["approved"], true, "{ended}");
    assert_eq!(api.step("twice", "call").await?["round"], 2);
    // What has succeeded in the end is taken over.
    let (status, made) =
        api.post(&format!("{WORKFLOWS}/twice:rerun"), &json!({ "reuseResults": true })).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    api.ended("twice").await?;
    assert_eq!(api.step("twice", "call").await?["reused"], true);

    api.create("never", spec.clone()).await?;
    decide(&api, "never", 1, "REJECT").await?;
    decide(&api, "never", 2, "REJECT").await?;
    let ended = api.ended("never").await?;
    assert_eq!(ended["status"]["message"], "step call: its workflow has failed in attempt 2 of 2", "{ended}");
    let id = ended["uid"].as_str().context("an id")?;
    let attempts = nested(&api, "never").await?;
    let deleted = api.http.delete(format!("{}{WORKFLOWS}/{id}", api.base)).send().await?;
    assert_eq!(deleted.status(), StatusCode::OK);
    for attempt in attempts {
        let id = attempt["uid"].as_str().context("an id")?.to_owned();
        tasks::eventually("the removal of an attempt", async || {
            let found = api.http.get(format!("{}{WORKFLOWS}/{id}", api.base)).send().await?;
            Ok(found.status() == StatusCode::NOT_FOUND)
        })
        .await?;
    }

    // A cancelled one is what a person wanted.
    api.create("stopped", spec).await?;
    tasks::eventually("an attempt", async || Ok(nested(&api, "stopped").await?.len() == 1)).await?;
    let id = nested(&api, "stopped").await?[0]["uid"].as_str().context("an id")?.to_owned();
    api.post(&format!("{WORKFLOWS}/{id}:cancel"), &json!({})).await?;
    api.ended("stopped").await?;
    assert_eq!(nested(&api, "stopped").await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn workflows_of_steps_have_the_time_of_the_step() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let waits = |more: Value| {
        let mut spec = json!({ "steps": [{ "name": "go", "wait": { "signal": "go" } }] });
        spec["timeout"] = more;
        spec
    };
    let steps = json!([{ "name": "call", "timeout": "1s", "maxAttempts": 2, "workflow": { "spec": waits(json!("3600s")) } }]);
    api.create("late", json!({ "steps": steps })).await?;
    let ended = api.ended("late").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
    let attempts = nested(&api, "late").await?;
    let why = "the time of the workflow has run out";
    assert!(
        attempts.len() == 2 && attempts.iter().all(|one| one["status"]["message"] == why),
        "{attempts:?}"
    );
    // The shorter time counts, whosever it is.
    let steps = json!([{ "name": "call", "timeout": "3600s", "workflow": { "spec": waits(json!("1s")) } }]);
    api.create("soon", json!({ "steps": steps })).await?;
    assert_eq!(api.ended("soon").await?["status"]["state"], "WORKFLOW_STATE_FAILED");

    let call = json!({ "spec": waits(Value::Null) });
    let refused = [
        (json!({ "task": echoes("x"), "timeout": "1s" }), "a task has limits.timeout"),
        (json!({ "task": echoes("x"), "maxAttempts": 2 }), "a task has retry.maxAttempts"),
        (json!({ "workflow": call, "maxAttempts": 11 }), "must be from 1 to 10"),
        (
            json!({ "workflow": call, "maxAttempts": 2, "forEach": { "items": "[1]" } }),
            "together with for_each",
        ),
        (json!({ "workflow": call, "timeout": "0s" }), "must be longer than 0 s"),
        (json!({ "workflow": { "template": "release@no" } }), "has no number above 0"),
    ];
    refuses_steps(&api, refused).await
}

#[tokio::test]
async fn steps_may_have_an_older_version_of_a_template() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 2)?;
    let api = Api::new(&cluster)?;
    let release = |text: &str| {
        let steps = json!([{ "name": "do", "task": echoes(text) }]);
        json!({ "steps": steps, "outputs": { "text": "${{ steps.do.result.text }}" } })
    };
    template(&api, "release", json!([]), release("old")).await?;
    template(&api, "release", json!([]), release("new")).await?;
    let call = |name: &str, template: &str| json!({ "name": name, "workflow": { "template": template } });
    let spec = json!({
        "steps": [call("first", "release@1"), call("newest", "release")],
        "outputs": { "both": "${{ steps.first.result.text }} ${{ steps.newest.result.text }}" },
    });
    api.create("versions", spec).await?;
    assert_eq!(api.ended("versions").await?["status"]["outputs"]["both"], "old new");
    assert_eq!(api.step("versions", "first").await?["template"], "release@1");
    api.create("missing", json!({ "steps": [call("a", "release@7")] })).await?;
    let ended = api.ended("missing").await?;
    assert!(ended.to_string().contains("template release has no version 7"), "{ended}");
    Ok(())
}
