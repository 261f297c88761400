//! Expressions in place of times and numbers of steps, and results of other types.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};

use super::nested::nested;
use super::{Api, WORKFLOWS, echoes, refuses_steps};

#[tokio::test]
async fn times_and_numbers_follow_from_inputs_and_results() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 2)?;
        let api = Api::new(&cluster)?;
        let mut limited = echoes("limited");
        limited["limits"] = json!({
            "timeout": "${{ item * 60 }}", "maxTurns": "${{ int(steps.plan.result.text) }}", "budgetMicroUsd": "${{ inputs.money }}",
        });
        let below = json!({ "steps": [{ "name": "go", "wait": { "signal": "go" } }] });
        let spec = json!({
            "inputs": { "delay": "1s", "seconds": 2, "rank": 8, "money": 5000 },
            "onFailure": "ON_STEP_FAILURE_CONTINUE",
            "steps": [
                { "name": "plan", "task": echoes("7") },
                { "name": "wait", "wait": { "duration": "${{ inputs.delay }}" } },
                { "name": "ask", "approval": { "prompt": "Go?", "deadline": "${{ inputs.seconds }}", "defaultDecision": "STEP_DECISION_APPROVE" } },
                { "name": "sign", "wait": { "signal": "never", "timeout": "${{ inputs.delay }}" } },
                { "name": "call", "timeout": "${{ inputs.seconds }}", "workflow": { "spec": below } },
                { "name": "work", "needs": [{ "step": "plan" }], "priority": "${{ inputs.rank }}",
                  "forEach": { "items": "[1, 2]", "maxParallel": 1 }, "task": limited },
            ],
        });
        api.create("typed", spec).await?;
        api.ended("typed").await?;
        for (step, state) in [
            ("wait", "SUCCEEDED"),
            ("ask", "SUCCEEDED"),
            ("sign", "FAILED"),
            ("call", "FAILED"),
            ("work", "SUCCEEDED"),
        ] {
            assert_eq!(api.step("typed", step).await?["state"], format!("STEP_STATE_{state}"), "{step}");
        }
        let called = nested(&api, "typed").await?;
        assert_eq!(called[0]["status"]["message"], "the time of the workflow has run out");
        let last = api.step("typed", "work").await?["lastTask"].as_str().context("a task")?.to_owned();
        let task = api.get(&format!("/api/v1/namespaces/default/tasks/{last}")).await?;
        let limits = json!({ "timeout": "120s", "maxTurns": 7, "budgetMicroUsd": "5000" });
        assert_eq!((&task["spec"]["limits"], &task["priority"]), (&limits, &json!(8)), "{task}");
    }
    Ok(())
}

#[tokio::test]
async fn results_of_other_types_fail_their_step() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let limited = |name: &str, text: &str| {
        let mut task = echoes("x");
        task["limits"] = json!({ name: text });
        json!({ "task": task })
    };
    for (step, why) in [
        (json!({ "wait": { "duration": "${{ 'soon' }}" } }), "wait.duration is \"soon\", and must be a time"),
        (json!({ "wait": { "duration": "${{ 0 }}" } }), "wait.duration is 0"),
        (json!({ "wait": { "duration": "${{ 8 * 86400 }}" } }), "at most 7 days"),
        (json!({ "approval": { "prompt": "x", "deadline": "${{ [1] }}" } }), "approval.deadline is [1]"),
        (
            json!({ "task": echoes("x"), "priority": "${{ 11 }}" }),
            "priority is 11, and must be a whole number from 0 to 10",
        ),
        (limited("maxTurns", "${{ 'many' }}"), "limits.maxTurns is \"many\", and must be a whole number"),
        (limited("timeout", "${{ true }}"), "limits.timeout is true"),
    ] {
        let mut step = step;
        step["name"] = json!("a");
        let made = api.create("wrong", json!({ "steps": [step] })).await?;
        let ended = api.ended(made["uid"].as_str().context("an id")?).await?;
        let message = ended["status"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("step a: ") && message.contains(why), "{message}");
    }
    // What cannot be one, or is there twice, is refused when the workflow is created.
    let wait = |expressions: Value| json!({ "wait": { "signal": "go" }, "expressions": expressions });
    let refused = [
        (wait(json!({ "approval.deadline": "${{ 1 }}" })), "is for a step of another kind"),
        (wait(json!({ "wait.duration": "${{ 1 }}" })), "must not be set together"),
        (wait(json!({ "needs": "${{ 1 }}" })), "is no field that may be an expression"),
        (wait(json!({ "timeout": "${{ 1 }}" })), "is for steps with a workflow or a merge"),
        (wait(json!({ "wait.timeout": "${{ item }}" })), "reads a value of an item"),
        (wait(json!({ "task.limits.timeout": "${{ 1 }}" })), "is for a step that has such a task"),
        (limited("speed", "${{ 1 }}"), "is no limit of a task"),
        (
            json!({ "task": echoes("x"), "expressions": { "task.limits.max_turns": "${{ 1 }}" } }),
            "is no limit of a task",
        ),
        (json!({ "wait": { "duration": "${{ inputs. }}" } }), "is invalid"),
    ];
    refuses_steps(&api, refused).await
}

#[tokio::test]
async fn labels_read_inputs() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let create = async |labels: Value| -> Result<(StatusCode, Value)> {
        let steps = json!([{ "name": "go", "wait": { "signal": "go" } }]);
        let spec = json!({ "inputs": { "team": "shop", "parts": ["a", "b"] }, "steps": steps });
        api.post(WORKFLOWS, &json!({ "labels": labels, "spec": spec })).await
    };
    let labels = json!({ "team": "${{ inputs.team }}", "size": "n${{ size(inputs.parts) }}", "plain": "x" });
    let (status, made) = create(labels).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!(made["labels"], json!({ "team": "shop", "size": "n2", "plain": "x" }));
    for (value, why) in [
        ("${{ steps.go.result }}", "can read `inputs` alone"),
        ("${{ inputs.none }}", "failed"),
        ("${{ ", "}}"),
    ] {
        let (status, refused) = create(json!({ "team": value })).await?;
        assert!(status == StatusCode::BAD_REQUEST && refused.to_string().contains(why), "{refused}");
    }
    Ok(())
}

#[tokio::test]
async fn labels_are_evaluated_once() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let text = "${{ inputs.none }}";
    let wait = json!({ "steps": [{ "name": "wait", "wait": { "duration": "0s" } }] });
    let spec =
        json!({ "inputs": { "title": text }, "steps": [{ "name": "call", "workflow": { "spec": wait } }] });
    let labels = json!({ "title": "${{ inputs.title }}" });
    let body = json!({ "alias": "once", "labels": labels, "spec": spec });
    let (status, made) = api.post(WORKFLOWS, &body).await?;
    assert_eq!((status, &made["labels"]["title"]), (StatusCode::OK, &json!(text)), "{made}");
    let ended = api.ended("once").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
    assert_eq!(nested(&api, "once").await?[0]["labels"]["title"], text);
    let (status, again) = api.post(&format!("{WORKFLOWS}/once:rerun"), &json!({})).await?;
    assert_eq!((status, &again["labels"]["title"]), (StatusCode::OK, &json!(text)), "{again}");
    Ok(())
}
