//! Budgets of workflows: over all tasks, also of workflows that are steps, and what follows once they are spent.

use anyhow::Result;
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS, echoes, refuses_steps};

/// A task that costs so many millionths of a dollar.
fn costs(micro_usd: i64, end: &Value) -> Value {
    let usage = json!({ "usage": { "costMicroUsd": micro_usd.to_string() } });
    json!({ "target": { "agent": "echo" }, "runtime": { "scripted": { "steps": [usage, end] } } })
}

async fn cluster(backend: Backend) -> Result<(Cluster, Api)> {
    let cluster = Cluster::start(backend).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let api = Api::new(&cluster)?;
    Ok((cluster, api))
}

async fn tasks_of(api: &Api, step: &str) -> Result<Vec<Value>> {
    let all = api.get("/api/v1/namespaces/default/tasks?pageSize=100").await?;
    let all = all["tasks"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|task| task["step"]["step"] == step).collect())
}

#[tokio::test]
async fn spent_budget_ends_a_workflow_with_what_runs() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let (cluster, api) = cluster(backend).await?;
        let _worker = cluster.worker("echo", "one", 2)?;
        let done = json!({ "succeed": "done" });
        let spec = json!({
            "budgetMicroUsd": "1000",
            "steps": [
                { "name": "hangs", "task": costs(0, &json!({ "hang": true })) },
                { "name": "go", "wait": { "signal": "go" } },
                {
                    "name": "each", "needs": [{ "step": "go" }],
                    "forEach": { "items": "[1, 2, 3, 4]", "maxParallel": 1 }, "task": costs(400, &done),
                },
                { "name": "after", "needs": [{ "step": "each" }], "task": echoes("never") },
            ],
            "finally": [{ "name": "clean", "task": echoes("${{ workflow.message }}") }],
        });
        api.create("dear", spec).await?;
        // An attempt that starts once a cost is known reserves that cost: the third item would wait for it.
        tasks::eventually("hangs on a worker", || async {
            Ok(tasks_of(&api, "hangs")
                .await?
                .iter()
                .any(|task| task["status"]["state"] == "TASK_STATE_RUNNING"))
        })
        .await?;
        api.until_step("dear", "go", "RUNNING").await?;
        assert_eq!(
            api.post(&format!("{WORKFLOWS}/dear:signal"), &json!({ "signal": "go" })).await?.0,
            StatusCode::OK
        );
        let ended = api.ended("dear").await?;
        let why = "the workflow has spent its budget: $0.0012 of $0.001";
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
        assert_eq!(
            (&ended["status"]["message"], &ended["status"]["costMicroUsd"]),
            (&json!(why), &json!("1200"))
        );
        assert_eq!(tasks_of(&api, "each").await?.len(), 3, "nothing starts for money that is not there");
        assert_eq!(api.step("dear", "hangs").await?["state"], "STEP_STATE_CANCELLED");
        assert_eq!(api.step("dear", "after").await?["state"], "STEP_STATE_SKIPPED");
        assert_eq!(api.step("dear", "clean").await?["state"], "STEP_STATE_SUCCEEDED");
        let explained = api.get(&format!("{WORKFLOWS}/dear:explain")).await?;
        assert_eq!(explained["causes"][0]["code"], "workflow_budget", "{explained}");
        assert!(explained["summary"].as_str().is_some_and(|text| text.contains(why)), "{explained}");
    }
    Ok(())
}

#[tokio::test]
async fn costs_of_nested_workflows_count_outside() -> Result<()> {
    let (mut cluster, api) = cluster(Backend::Sqlite).await?;
    let worker = cluster.worker("echo", "one", 2)?;
    let done = json!({ "succeed": "done" });
    let deep = json!({ "steps": [{ "name": "pay", "task": costs(30, &done) }] });
    let inner = json!({
        "steps": [{ "name": "below", "workflow": { "spec": deep } }, { "name": "more", "task": costs(20, &done) }],
    });
    let spec = json!({
        "budgetMicroUsd": "100",
        "steps": [
            { "name": "first", "workflow": { "spec": inner } },
            { "name": "go", "needs": [{ "step": "first" }], "wait": { "signal": "go" } },
            { "name": "second", "needs": [{ "step": "go" }], "workflow": { "spec": inner } },
            { "name": "last", "needs": [{ "step": "second" }], "task": echoes("never") },
        ],
    });
    api.create("outer", spec).await?;
    api.until_step("outer", "go", "RUNNING").await?;
    assert_eq!(api.workflow("outer").await?["status"]["costMicroUsd"], "50");
    let explained = api.get(&format!("{WORKFLOWS}/outer:explain")).await?;
    let summary = explained["summary"].as_str().unwrap_or_default();
    assert!(summary.ends_with("Its tasks have cost $0.00005 of its budget of $0.0001."), "{summary}");
    drop(worker);
    cluster.kill().await;
    cluster.restart().await?;
    let _worker = cluster.worker("echo", "two", 2)?;
    let api = Api::new(&cluster)?;
    let signal = json!({ "signal": "go" });
    assert_eq!(api.post(&format!("{WORKFLOWS}/outer:signal"), &signal).await?.0, StatusCode::OK);
    let ended = api.ended("outer").await?;
    let why = "the workflow has spent its budget: $0.0001 of $0.0001";
    assert_eq!(
        (&ended["status"]["message"], &ended["status"]["costMicroUsd"]),
        (&json!(why), &json!("100")),
        "{ended}"
    );
    assert!(tasks_of(&api, "last").await?.is_empty());

    // A rerun counts from the beginning, with another budget if that is given.
    let rerun = json!({ "budgetMicroUsd": "1000" });
    let (status, made) = api.post(&format!("{WORKFLOWS}/outer:rerun"), &rerun).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    api.until_step("outer", "go", "RUNNING").await?;
    api.post(&format!("{WORKFLOWS}/outer:signal"), &signal).await?;
    let ended = api.ended("outer").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
    let spec = json!({ "budgetMicroUsd": "-1", "steps": [{ "name": "a", "task": echoes("x") }] });
    let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": spec })).await?;
    assert!(
        status == StatusCode::BAD_REQUEST && refused.to_string().contains("must not be negative"),
        "{refused}"
    );
    Ok(())
}

#[tokio::test]
async fn budgets_of_steps_bound_their_tasks_and_workflows() -> Result<()> {
    let (cluster, api) = cluster(Backend::Sqlite).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let done = json!({ "succeed": "done" });
    let hangs = json!({ "delay": "3600s" });
    let mut task = costs(30, &hangs);
    task["limits"] = json!({ "budgetMicroUsd": "${{ inputs.money }}" });
    let pays = |own: i64, end: &Value| json!({ "budgetMicroUsd": own.to_string(), "steps": [{ "name": "pay", "task": costs(30, end) }] });
    let call = |name: &str, of_step: i64, spec: Value| json!({ "name": name, "budgetMicroUsd": of_step.to_string(), "workflow": { "spec": spec } });
    let spec = json!({
        "onFailure": "ON_STEP_FAILURE_SKIP_DEPENDENTS",
        "inputs": { "money": 20 },
        "steps": [
            { "name": "task", "task": task },
            call("enough", 31, pays(0, &done)),
            call("spent", 20, pays(0, &hangs)),
            call("own", 1000, pays(20, &hangs)),
            call("of-step", 20, pays(1000, &hangs)),
        ],
    });
    api.create("steps", spec).await?;
    let ended = api.ended("steps").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
    assert_eq!(api.step("steps", "enough").await?["state"], "STEP_STATE_SUCCEEDED");
    let task = tasks_of(&api, "task").await?;
    assert_eq!(task[0]["status"]["failure"]["class"], "FAILURE_CLASS_BUDGET", "{task:?}");
    for name in ["spent", "own", "of-step"] {
        let step = api.step("steps", name).await?;
        let path = format!("{WORKFLOWS}/{}", step["lastWorkflow"].as_str().unwrap_or_default());
        let below = api.get(&path).await?;
        let why = "the workflow has spent its budget: $0.00003 of $0.00002";
        assert_eq!(
            (&step["state"], &below["status"]["message"]),
            (&json!("STEP_STATE_FAILED"), &json!(why)),
            "{name}"
        );
    }

    let inner = json!({ "spec": { "steps": [{ "name": "a", "task": echoes("x") }] } });
    let refused = [
        (json!({ "task": echoes("x"), "budgetMicroUsd": "1" }), "a task has limits.budgetMicroUsd"),
        (json!({ "workflow": inner, "budgetMicroUsd": "-1" }), "must not be negative"),
    ];
    refuses_steps(&api, refused).await
}
