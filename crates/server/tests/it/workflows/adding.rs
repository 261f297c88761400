//! Steps that are added to a workflow that runs.

use anyhow::Result;
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS, echoes};

async fn add(api: &Api, alias: &str, step: Value) -> Result<(StatusCode, Value)> {
    api.post(&format!("{WORKFLOWS}/{alias}:addStep"), &json!({ "step": step })).await
}

#[tokio::test]
async fn added_steps_run_and_are_reused() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let spec = json!({
        "steps": [
            { "name": "first", "task": echoes("one") },
            { "name": "go", "needs": [{ "step": "first" }], "wait": { "signal": "go" } },
        ],
        "finally": [{ "name": "clean", "task": echoes("${{ steps.go.state }}") }],
    });
    api.create("grow", spec).await?;
    api.until_step("grow", "go", "RUNNING").await?;
    let second = json!({ "name": "second", "needs": [{ "step": "first" }], "task": echoes("${{ steps.first.result.text }} two") });
    let (status, added) = add(&api, "grow", second.clone()).await?;
    assert_eq!((status, &added["step"]["index"]), (StatusCode::OK, &json!(3)), "{added}");
    let (status, again) = add(&api, "grow", second).await?;
    assert_eq!((status, &again["step"]["index"]), (StatusCode::OK, &json!(3)), "the same step: {again}");
    api.until_step("grow", "second", "SUCCEEDED").await?;
    cluster.kill().await;
    cluster.restart().await?;
    let third = json!({ "name": "third", "needs": [{ "step": "second" }, { "step": "go" }], "task": echoes("${{ steps.second.result.text }} three") });
    let (status, added) = add(&api, "grow", third).await?;
    assert_eq!(status, StatusCode::OK, "{added}");
    for (wrong, why) in [
        (json!({ "name": "first", "task": echoes("other") }), "is the name of another step"),
        (json!({ "name": "x", "needs": [{ "step": "no" }], "task": echoes("x") }), "does not exist"),
        (json!({ "name": "x", "needs": [{ "step": "x" }], "task": echoes("x") }), "steps need each other"),
        (
            json!({ "name": "x", "needs": [{ "step": "clean" }], "task": echoes("x") }),
            "cannot need each other",
        ),
        (json!({ "name": "x", "task": echoes("${{ steps.first.result.text }}") }), "without needing it"),
    ] {
        let (status, answer) = add(&api, "grow", wrong).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer.to_string().contains(why), "{answer}");
    }
    let (_, sent) = api.post(&format!("{WORKFLOWS}/grow:signal"), &json!({ "signal": "go" })).await?;
    assert_eq!(sent["steps"], 1);
    let ended = api.ended("grow").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
    assert_eq!(ended["status"]["counts"]["total"], 5, "{ended}");
    let (status, late) = add(&api, "grow", json!({ "name": "late", "task": echoes("x") })).await?;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{late}");

    let whole = api.workflow("grow").await?;
    let names = |list: &Value| -> Vec<Value> {
        list.as_array().into_iter().flatten().map(|step| step["name"].clone()).collect()
    };
    assert_eq!(names(&whole["spec"]["steps"]), ["first", "go", "second", "third"]);
    assert_eq!(names(&whole["spec"]["finally"]), ["clean"]);
    let (status, made) =
        api.post(&format!("{WORKFLOWS}/grow:rerun"), &json!({ "reuseResults": true })).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    let ended = api.ended("grow").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
    for step in ["first", "go", "second", "third"] {
        assert_eq!(api.step("grow", step).await?["reused"], true, "{step}");
    }
    drop(worker);
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn added_steps_are_bounded_together() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    api.create("grow", json!({ "steps": [{ "name": "go", "wait": { "signal": "go" } }] })).await?;
    api.until_step("grow", "go", "RUNNING").await?;
    let text = "x".repeat(900_000);
    let large = |index: usize| json!({ "name": format!("s{index}"), "needs": [{ "step": "go" }], "task": echoes(&text) });
    for index in 0..9 {
        let (status, answer) = add(&api, "grow", large(index)).await?;
        assert_eq!(status, StatusCode::OK, "{index}");
        assert_eq!(answer["step"]["index"], index + 1);
    }
    let (status, answer) = add(&api, "grow", large(9)).await?;
    assert_eq!(status, StatusCode::BAD_REQUEST, "the workflow has no bound");
    assert!(answer.to_string().contains("larger than 8388608 bytes"), "{answer}");
    let whole = api.workflow("grow").await?;
    assert_eq!(whole["spec"]["steps"].as_array().map(Vec::len), Some(10));
    Ok(())
}
