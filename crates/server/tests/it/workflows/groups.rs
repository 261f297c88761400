//! Concurrency groups over the API: who runs, what an explanation names, and what a killed control plane leaves.

use anyhow::Result;
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, group_history, history, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS, echoes};

fn deploy(environment: &str) -> Value {
    json!({
        "inputs": { "environment": environment },
        "concurrency": { "group": "deploy-${{ inputs.environment }}" },
        "steps": [{ "name": "go", "task": echoes("done") }],
        "finally": [{ "name": "clean", "task": echoes("clean") }],
    })
}

async fn first_cause(api: &Api, alias: &str) -> Result<Value> {
    Ok(api.get(&format!("{WORKFLOWS}/{alias}:explain")).await?["causes"][0].clone())
}

#[tokio::test]
async fn workflows_of_a_group_take_turns() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let mut cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let api = Api::new(&cluster)?;
        for (alias, environment) in
            [("one", "prod"), ("two", "prod"), ("left", "prod"), ("test", "test"), ("three", "prod")]
        {
            let made = api.create(alias, deploy(environment)).await?;
            let waits = made["status"]["waitsForGroup"] == true;
            assert_eq!(waits, !["one", "test"].contains(&alias), "{made}");
        }
        for alias in ["one", "test"] {
            api.until_step(alias, "go", "RUNNING").await?;
        }
        let waiting = api.workflow("two").await?["status"].clone();
        assert_eq!(
            (&waiting["concurrencyGroup"], &waiting["waitsForGroup"]),
            (&json!("deploy-prod"), &json!(true))
        );
        assert_eq!(api.step("two", "go").await?["state"], "STEP_STATE_HELD");
        let cause = first_cause(&api, "three").await?;
        assert_eq!(cause["code"], "group_full");
        let expected =
            "the workflow waits for a place in concurrency group deploy-prod, held by one; 2 wait before it";
        assert_eq!(cause["message"], expected);
        // One that waits leaves without having begun anything.
        assert_eq!(api.post(&format!("{WORKFLOWS}/left:cancel"), &json!({})).await?.0, StatusCode::OK);
        assert_eq!(api.ended("left").await?["status"]["state"], "WORKFLOW_STATE_CANCELLED");
        assert_eq!(api.step("left", "clean").await?["state"], "STEP_STATE_SKIPPED");
        assert!(
            first_cause(&api, "three").await?["message"]
                .as_str()
                .unwrap_or_default()
                .ends_with("1 wait before it")
        );
        let is_durable = matches!(backend, Backend::Sqlite);
        if is_durable {
            cluster.kill().await;
            cluster.restart().await?;
        }
        let api = Api::new(&cluster)?;
        assert_eq!(api.workflow("two").await?["status"]["waitsForGroup"], true);
        // One that is cancelled leaves as soon as its finally-steps have ended.
        assert_eq!(api.post(&format!("{WORKFLOWS}/one:cancel"), &json!({})).await?.0, StatusCode::OK);
        api.until_step("one", "clean", "RUNNING").await?;
        assert_eq!(api.workflow("two").await?["status"]["waitsForGroup"], true);
        let _worker = cluster.worker("echo", "one", 4)?;
        for alias in ["two", "three", "test"] {
            assert_eq!(api.ended(alias).await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
        }
        assert_eq!(api.ended("one").await?["status"]["state"], "WORKFLOW_STATE_CANCELLED");
        let found = group_history::check(cluster.client()).await?;
        assert_eq!(found.attempts, 4, "all but the one that was cancelled while it waited");
        found.check()?;
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn newer_workflow_takes_the_place() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let hang =
        json!({ "target": { "agent": "echo" }, "runtime": { "scripted": { "steps": [{ "hang": true }] } } });
    let preview = |task: Value| {
        json!({
            "concurrency": { "group": "preview", "whenFull": "WHEN_FULL_REPLACE" },
            "steps": [{ "name": "show", "task": task }],
        })
    };
    api.create("old", preview(hang.clone())).await?;
    api.until_step("old", "show", "RUNNING").await?;
    api.create("new", preview(echoes("shown"))).await?;
    let old = api.ended("old").await?["status"].clone();
    assert_eq!(old["state"], "WORKFLOW_STATE_CANCELLED");
    assert_eq!(old["message"], "another workflow of concurrency group preview has taken its place");
    assert_eq!(api.ended("new").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");

    // A step gives way with its tasks, and no other step.
    let steps = |task: Value| {
        json!({ "onFailure": "ON_STEP_FAILURE_CONTINUE", "steps": [
            { "name": "show", "task": task, "concurrency": { "group": "preview", "whenFull": "WHEN_FULL_REPLACE" } },
            { "name": "ask", "approval": { "prompt": "?" } },
        ] })
    };
    api.create("old-step", steps(hang)).await?;
    api.until_step("old-step", "show", "RUNNING").await?;
    api.create("new-step", steps(echoes("shown"))).await?;
    let shown = api.until_step("old-step", "show", "CANCELLED").await?;
    assert_eq!(shown["message"], "a new member of its concurrency group has taken its place");
    api.until_step("new-step", "show", "SUCCEEDED").await?;
    assert_eq!(api.step("old-step", "ask").await?["state"], "STEP_STATE_RUNNING");
    group_history::check(cluster.client()).await?.check()
}

#[tokio::test]
async fn steps_of_a_mutex_run_one_after_the_other() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let steps: Vec<_> = (0..5)
        .map(|index| {
            json!({
                "name": format!("s{index}"), "task": echoes("x"), "forEach": { "items": "[1, 2]" },
                "concurrency": { "group": "database", "limit": if index % 2 == 0 { 1 } else { 2 } },
            })
        })
        .collect();
    let aliases: Vec<_> = (0..4).map(|index| format!("w{index}")).collect();
    let api = Api::new(&cluster)?;
    for alias in &aliases {
        api.create(alias, json!({ "maxParallel": 3, "steps": steps })).await?;
    }
    api.until_step("w0", "s0", "RUNNING").await?;
    tasks::eventually("the wait for the group", || async {
        let explained = api.get(&format!("{WORKFLOWS}/w1:explain?step=s0")).await?;
        Ok(explained["causes"][0]["code"] == "group_full")
    })
    .await?;
    {
        let _worker = cluster.worker("echo", "one", 8)?;
        api.until_step("w1", "s0", "SUCCEEDED").await?;
        cluster.kill().await;
    }
    cluster.restart().await?;
    let _worker = cluster.worker("echo", "two", 8)?;
    let api = Api::new(&cluster)?;
    for alias in &aliases {
        assert_eq!(api.ended(alias).await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
    }
    let found = group_history::check(cluster.client()).await?;
    assert_eq!(found.attempts, 20);
    found.check()?;
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn steps_with_workflows_hold_their_group() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let api = Api::new(&cluster)?;
    let go = json!({ "steps": [{ "name": "go", "wait": { "signal": "go" } }] });
    let call = |when_full: &str| {
        let group = json!({ "group": "database", "whenFull": when_full });
        json!({ "steps": [{ "name": "call", "concurrency": group, "workflow": { "spec": go } }] })
    };
    for alias in ["one", "two"] {
        api.create(alias, call("WHEN_FULL_QUEUE")).await?;
    }
    let first = api.until_step("one", "call", "RUNNING").await?;
    tasks::eventually("the wait for the group", || async {
        let waits = api.step("two", "call").await?;
        Ok(waits["state"] == "STEP_STATE_HELD" && waits["waitsForGroup"] == true)
    })
    .await?;
    // A step that is added below it cannot have a group.
    let first = first["lastWorkflow"].as_str().unwrap_or_default();
    let step = json!({ "name": "more", "concurrency": { "group": "other" }, "wait": { "duration": "0s" } });
    let (status, refused) =
        api.post(&format!("{WORKFLOWS}/{first}:addStep"), &json!({ "step": step })).await?;
    assert!(
        status == StatusCode::BAD_REQUEST && refused.to_string().contains("step call around it"),
        "{refused}"
    );
    api.post(&format!("{WORKFLOWS}/{first}:signal"), &json!({ "signal": "go" })).await?;
    assert_eq!(api.ended("one").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
    let second = api.until_step("two", "call", "RUNNING").await?;
    // The workflow of a step that is replaced is cancelled.
    api.create("three", call("WHEN_FULL_REPLACE")).await?;
    api.until_step("two", "call", "CANCELLED").await?;
    let second = second["lastWorkflow"].as_str().unwrap_or_default();
    assert_eq!(api.ended(second).await?["status"]["state"], "WORKFLOW_STATE_CANCELLED");
    api.until_step("three", "call", "RUNNING").await?;

    // What is below it would hold what others wait for, while it waits itself.
    let mut grouped = go.clone();
    grouped["steps"][0]["concurrency"] = json!({ "group": "other" });
    let around = |called: Value| json!({ "steps": [{ "name": "call", "concurrency": { "group": "free" }, "workflow": called }] });
    let deeper = json!({ "steps": [{ "name": "deeper", "workflow": { "spec": grouped } }] });
    for spec in [&grouped, &deeper] {
        let body = json!({ "spec": around(json!({ "spec": spec })) });
        let (status, refused) = api.post(WORKFLOWS, &body).await?;
        let text = refused.to_string();
        assert!(status == StatusCode::BAD_REQUEST && text.contains("steps[0].concurrency"), "{text}");
    }
    let template = json!({ "spec": { "workflow": deeper } });
    let path = format!("{}/api/v1/namespaces/default/templates/locks?allowMissing=true", api.base);
    anyhow::ensure!(api.http.patch(path).json(&template).send().await?.status() == StatusCode::OK);
    api.create("late", around(json!({ "template": "locks" }))).await?;
    let ended = api.ended("late").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
    let explained = api.get(&format!("{WORKFLOWS}/late:explain")).await?.to_string();
    assert!(explained.contains("step call around it holds concurrency group"), "{explained}");
    Ok(())
}
