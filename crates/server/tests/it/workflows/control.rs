//! Pauses and cancellations of workflows that run.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_proto::v1;
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS, echoes, fails};

async fn control(api: &Api, alias: &str, verb: &str) -> Result<()> {
    let (status, answer) = api.post(&format!("{WORKFLOWS}/{alias}:{verb}"), &json!({})).await?;
    anyhow::ensure!(status == StatusCode::OK, "{answer}");
    Ok(())
}

async fn made(api: &Api, workflow: &Value) -> Result<usize> {
    let id = workflow["uid"].as_str().context("an id")?;
    let tasks =
        api.get(&format!("/api/v1/namespaces/default/tasks?filter.workflow={id}&pageSize=100")).await?;
    Ok(tasks["tasks"].as_array().map_or(0, Vec::len))
}

#[tokio::test]
async fn pause_holds_rounds_and_further_tasks() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let api = Api::new(&cluster)?;
        let spec = json!({ "steps": [
            { "name": "fan", "task": echoes("${{ item }}"), "forEach": { "items": "[1, 2, 3]", "maxParallel": 1 } },
            { "name": "again", "task": echoes("x"), "repeat": { "until": "round >= 3", "max": 3 } },
        ] });
        let workflow = api.create("held", spec).await?;
        for step in ["fan", "again"] {
            api.until_step("held", step, "RUNNING").await?;
        }
        control(&api, "held", "pause").await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        api.until_step("held", "again", "ENDING").await?;
        tasks::eventually("the first task of the fan-out ends", || async {
            Ok(api.step("held", "fan").await?["tasksSucceeded"] == 1)
        })
        .await?;
        // What the driver would have begun before this one has happened by its end.
        api.create("other", json!({ "steps": [{ "name": "a", "task": echoes("a") }] })).await?;
        api.ended("other").await?;
        assert_eq!(made(&api, &workflow).await?, 2, "nothing starts while it is paused");
        control(&api, "held", "resume").await?;
        let ended = api.ended("held").await?;
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
        assert_eq!(made(&api, &workflow).await?, 6);
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn expressions_see_results_of_failed_steps() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let approval = json!({
        "deadline": "60s", "defaultDecision": "STEP_DECISION_APPROVE",
        "prompt": "${{ steps.bad.result == null }} ${{ steps.skip.result == null }} ${{ steps.again.result.text }}",
    });
    let spec = json!({ "onFailure": "ON_STEP_FAILURE_CONTINUE", "steps": [
        { "name": "bad", "task": fails() },
        { "name": "skip", "condition": "${{ false }}", "task": echoes("never") },
        { "name": "again", "task": echoes("last"), "repeat": { "until": "${{ false }}", "max": 2 } },
        { "name": "ask", "approval": approval,
          "needs": [{ "step": "bad" }, { "step": "skip" }, { "step": "again" }] },
    ] });
    api.create("failed", spec).await?;
    api.until_step("failed", "ask", "RUNNING").await?;
    for (step, state) in [("bad", "FAILED"), ("skip", "SKIPPED"), ("again", "FAILED")] {
        assert_eq!(api.step("failed", step).await?["state"], format!("STEP_STATE_{state}"));
    }
    assert_eq!(api.step("failed", "ask").await?["prompt"], "true true last");
    Ok(())
}

#[tokio::test]
async fn workflow_created_paused_starts_nothing() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let steps = json!([{ "name": "a", "task": echoes("a") }]);
        let body = json!({ "alias": "later", "spec": { "steps": steps } });
        let (status, workflow) = api.post(&format!("{WORKFLOWS}?paused=true"), &body).await?;
        assert_eq!(status, StatusCode::OK, "{workflow}");
        assert_eq!(workflow["status"]["state"], "WORKFLOW_STATE_PAUSED", "{workflow}");
        // What the driver would have begun before this one has happened by its end.
        api.create("other", json!({ "steps": steps })).await?;
        api.ended("other").await?;
        assert_eq!(api.step("later", "a").await?["state"], "STEP_STATE_HELD");
        assert_eq!(made(&api, &workflow).await?, 0);
        control(&api, "later", "resume").await?;
        assert_eq!(api.ended("later").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
        assert_eq!(made(&api, &workflow).await?, 1);
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn only_an_explicit_cancellation_ends_finally_steps() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let api = Api::new(&cluster)?;
        let spec = json!({
            "steps": [{ "name": "ask", "approval": { "prompt": "?" } }],
            "finally": [{ "name": "hang", "wait": { "signal": "never" } }],
        });
        api.create("stuck", spec).await?;
        api.until_step("stuck", "ask", "RUNNING").await?;
        control(&api, "stuck", "cancel").await?;
        api.until_step("stuck", "hang", "RUNNING").await?;
        let (status, refused) = api.post(&format!("{WORKFLOWS}/stuck:pause"), &json!({})).await?;
        assert_eq!(
            (status, &refused["details"][0]["reason"]),
            (StatusCode::BAD_REQUEST, &json!("WORKFLOW_STATE_CONFLICT"))
        );
        // A client repeats a call whose answer it has not received.
        let name = "namespaces/default/workflows/stuck".to_owned();
        let cancel = |also_finally| {
            let name = name.clone();
            cluster.client().cancel_workflow(v1::CancelWorkflowRequest {
                name,
                also_finally,
                ..Default::default()
            })
        };
        let again = cancel(false).await?.status.unwrap_or_default();
        assert_eq!((again.state(), again.cancelled), (v1::WorkflowState::Finalizing, true));
        assert_eq!(api.step("stuck", "hang").await?["state"], "STEP_STATE_RUNNING");
        cancel(true).await?;
        let ended = api.ended("stuck").await?;
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_CANCELLED", "{ended}");
        assert_eq!(api.step("stuck", "hang").await?["state"], "STEP_STATE_CANCELLED");
    }
    Ok(())
}

/// As long as it were tried again, the workflow would neither end nor show why.
#[tokio::test]
async fn damaged_kind_fails_its_step() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let name = rota_proto::names::kind("default", "notes");
    let kind = v1::TaskKind { name, spec: Some(v1::TaskKindSpec::default()), ..Default::default() };
    let put = v1::PutTaskKindRequest { task_kind: Some(kind), validate_only: false, ..Default::default() };
    cluster.client().put_task_kind(put).await?;
    cluster.kill().await;
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute("UPDATE documents SET record = x'ff' WHERE name = 'notes'", [])?, 1);
    drop(database);
    cluster.restart().await?;
    let api = Api::new(&cluster)?;
    let mut task = echoes("x");
    task["kind"] = json!("notes");
    api.create("broken", json!({ "steps": [{ "name": "a", "task": task }] })).await?;
    let ended = api.ended("broken").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
    Ok(())
}

#[tokio::test]
async fn explained_steps_name_what_they_need() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let spec = json!({
        "inputs": { "deploy": true },
        "onFailure": "ON_STEP_FAILURE_SKIP_DEPENDENTS",
        "steps": [
            { "name": "ask", "approval": { "prompt": "Go?" } },
            { "name": "mid", "needs": [{ "step": "ask" }], "task": echoes("x") },
            { "name": "late", "needs": [{ "step": "ask" }, { "step": "mid" }], "task": echoes("x") },
            { "name": "skip", "condition": "!inputs.deploy", "task": echoes("x") },
            { "name": "bad", "task": fails() },
            { "name": "dep", "needs": [{ "step": "skip" }, { "step": "bad" }], "task": echoes("x") },
        ],
    });
    api.create("graph", spec).await?;
    api.until_step("graph", "dep", "SKIPPED").await?;
    api.until_step("graph", "skip", "SKIPPED").await?;
    let messages = async |step: &str| -> Result<Vec<String>> {
        let explained = api.get(&format!("{WORKFLOWS}/graph:explain?step={step}")).await?;
        let causes = explained["causes"].as_array().cloned().unwrap_or_default();
        Ok(causes.iter().filter_map(|cause| cause["message"].as_str()).map(str::to_owned).collect())
    };
    assert_eq!(
        messages("late").await?,
        [
            "step late waits for 2 of 2 steps that it needs: ask (RUNNING), mid (WAITING)",
            "step ask waits for a decision: Go?"
        ]
    );
    let skipped = "step skip was skipped: its condition does not hold: !inputs.deploy";
    assert_eq!(messages("skip").await?, [skipped]);
    let skipped = "step dep was skipped: a step that it needs has not succeeded: bad (FAILED)";
    assert_eq!(messages("dep").await?, [skipped]);
    let missing = messages("absent").await.expect_err("no such step").to_string();
    assert!(missing.contains("does not exist"), "{missing}");
    api.post(&format!("{WORKFLOWS}/graph:cancel"), &json!({ "reason": "enough" })).await?;
    api.ended("graph").await?;
    let stopped = messages("late").await?;
    assert!(
        stopped.concat().starts_with("step late was skipped: the workflow stopped before it: "),
        "{stopped:?}"
    );
    Ok(())
}
