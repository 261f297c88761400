//! Workflows over kills of the control plane: what was begun continues. Deadlines of approvals.

use anyhow::{Context, Result, ensure};
use rota_proto::v1;
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::{Value, json};

use super::{Api, echoes, fails};

/// A task that asks a person before it succeeds.
fn asks(text: &str) -> Value {
    let steps = json!([{ "ask": "May I?" }, { "succeed": text }]);
    json!({ "target": { "agent": "echo" }, "runtime": { "scripted": { "steps": steps } } })
}

#[tokio::test]
async fn compensation_continues_after_a_kill() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let worker = cluster.worker("echo", "one", 2)?;
    let api = Api::new(&cluster)?;
    let spec = json!({
        "onFailure": "ON_STEP_FAILURE_COMPENSATE",
        "steps": [
            { "name": "one", "task": echoes("1"), "compensate": echoes("undone 1") },
            { "name": "two", "needs": [{ "step": "one" }], "task": echoes("2"), "compensate": asks("undone 2") },
            { "name": "bad", "needs": [{ "step": "two" }], "task": fails() },
        ],
        "finally": [{ "name": "clean", "task": echoes("${{ workflow.status }}") }],
    });
    api.create("undo", spec).await?;
    let compensating = async || {
        tasks::eventually("the compensation of the last step", async || {
            let two = api.step("undo", "two").await?;
            Ok(two["compensation"] == "STEP_STATE_RUNNING")
        })
        .await?;
        let task = api.step("undo", "two").await?["lastTask"].clone();
        anyhow::Ok(format!("namespaces/default/tasks/{}", task.as_str().context("a task")?))
    };
    let task = compensating().await?;
    tasks::until_state(cluster.client(), &task, v1::TaskState::InputRequired).await?;
    cluster.kill().await;
    cluster.restart().await?;
    assert_eq!(compensating().await?, task, "the same task");
    tasks::answer(cluster.client(), &task, "yes").await?;
    let ended = api.ended("undo").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
    for step in ["one", "two"] {
        assert_eq!(api.step("undo", step).await?["compensation"], "STEP_STATE_SUCCEEDED");
    }
    assert_eq!(api.step("undo", "clean").await?["state"], "STEP_STATE_SUCCEEDED");
    let id = ended["uid"].as_str().context("an id")?;
    let all = api.get(&format!("/api/v1/namespaces/default/tasks?filter.workflow={id}")).await?;
    let tasks = all["tasks"].as_array().map_or(0, Vec::len);
    ensure!(tasks == 6, "three steps, two compensations, one finally-step: {tasks}");
    drop(worker);
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn approvals_expire_by_their_defaults() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let api = Api::new(&cluster)?;
    let approval = |default: &str| json!({ "prompt": "?", "deadline": "1s", "defaultDecision": default });
    let spec = json!({
        "onFailure": "ON_STEP_FAILURE_SKIP_DEPENDENTS",
        "steps": [
            { "name": "approved", "approval": approval("STEP_DECISION_APPROVE") },
            { "name": "rejected", "approval": approval("STEP_DECISION_UNSPECIFIED") },
            { "name": "later", "needs": [{ "step": "approved" }], "approval": {
                "prompt": "${{ steps.approved.result.approved }}${{ steps.approved.result.comment }}",
                "deadline": "1s", "defaultDecision": "STEP_DECISION_APPROVE",
            } },
            { "name": "never", "needs": [{ "step": "rejected" }], "wait": { "duration": "1s" } },
            { "name": "despite", "needs": [{ "step": "rejected", "onFailure": "ON_STEP_FAILURE_CONTINUE" }], "approval": {
                "prompt": "${{ steps.rejected.result.approved }}${{ steps.rejected.result.comment }}",
                "deadline": "1s", "defaultDecision": "STEP_DECISION_APPROVE",
            } },
        ],
    });
    api.create("ask", spec).await?;
    let ended = api.ended("ask").await?;
    assert_eq!(
        (&ended["status"]["state"], &ended["status"]["failedStep"]),
        (&json!("WORKFLOW_STATE_FAILED"), &json!("rejected"))
    );
    for (step, state, message) in [
        ("approved", "SUCCEEDED", "approved, since there was no decision in time"),
        ("rejected", "FAILED", "rejected, since there was no decision in time"),
        ("later", "SUCCEEDED", "approved, since there was no decision in time"),
        ("never", "SKIPPED", "a step that it needs has not succeeded"),
        ("despite", "SUCCEEDED", "approved, since there was no decision in time"),
    ] {
        let found = api.step("ask", step).await?;
        assert_eq!(
            (&found["state"], &found["message"]),
            (&json!(format!("STEP_STATE_{state}")), &json!(message))
        );
    }
    assert_eq!(api.step("ask", "later").await?["prompt"], "true");
    assert_eq!(api.step("ask", "despite").await?["prompt"], "false");
    // A decision is too late.
    let decide = json!({ "step": "approved", "decision": "STEP_DECISION_REJECT" });
    let (status, _) = api.post(&format!("{}/ask:decide", super::WORKFLOWS), &decide).await?;
    assert_eq!(status, reqwest::StatusCode::BAD_REQUEST);
    Ok(())
}
