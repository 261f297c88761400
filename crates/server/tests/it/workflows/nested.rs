//! Workflows that are steps of others: inputs and results, kills, commands, bounds.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS, echoes, fails};

const TEMPLATES: &str = "/api/v1/namespaces/default/templates";

pub(super) async fn template(api: &Api, name: &str, parameters: Value, workflow: Value) -> Result<()> {
    let spec = json!({ "parameters": parameters, "workflow": workflow });
    let path = format!("{TEMPLATES}/{name}?allowMissing=true");
    let answer = api.http.patch(format!("{}{path}", api.base)).json(&json!({ "spec": spec })).send().await?;
    anyhow::ensure!(answer.status() == StatusCode::OK, "{}", answer.text().await?);
    Ok(())
}

pub(super) async fn nested(api: &Api, alias: &str) -> Result<Vec<Value>> {
    let id = api.workflow(alias).await?["uid"].as_str().context("an id")?.to_owned();
    let list = api.get(&format!("{WORKFLOWS}?filter.parentWorkflow={id}")).await?;
    Ok(list["workflows"].as_array().cloned().unwrap_or_default())
}

async fn signal(api: &Api, workflow: &Value) -> Result<()> {
    let id = workflow["uid"].as_str().context("an id")?;
    tasks::eventually("the signal", async || {
        let (_, sent) = api.post(&format!("{WORKFLOWS}/{id}:signal"), &json!({ "signal": "go" })).await?;
        Ok(sent["steps"] == 1)
    })
    .await
}

#[tokio::test]
async fn nested_workflows_survive_kills() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let parameters = json!([{ "name": "module", "schema": { "type": "string" } }]);
    let release = |text: &str| {
        json!({
            "steps": [
                { "name": "go", "wait": { "signal": "go" } },
                { "name": "do", "needs": [{ "step": "go" }], "task": echoes(text) },
            ],
            "outputs": { "text": "${{ steps.do.result.text }}" },
        })
    };
    template(&api, "release", parameters.clone(), release("released ${{ inputs.module }}")).await?;
    let inline = json!({
        "steps": [{ "name": "count", "task": echoes("${{ inputs.names.join('+') }}") }],
        "outputs": { "text": "${{ steps.count.result.text }}" },
    });
    let spec = json!({
        "inputs": { "modules": ["a", "b", "c"] },
        "steps": [
            { "name": "each", "forEach": { "items": "inputs.modules", "maxParallel": 2 },
              "workflow": { "template": "release", "inputs": { "module": "${{ item }}" } } },
            { "name": "sum", "needs": [{ "step": "each" }],
              "workflow": { "spec": inline, "inputs": { "names": "${{ steps.each.results.map(r, r.text) }}" } } },
        ],
        "outputs": { "text": "${{ steps.sum.result.text }}" },
    });
    api.create("all", spec).await?;
    tasks::eventually("two workflows", async || Ok(nested(&api, "all").await?.len() == 2)).await?;
    let two = nested(&api, "all").await?;
    assert_eq!((&two[0]["parentStep"], &two[0]["spec"]["title"]), (&json!("each"), &json!("each")));
    let step = api.step("all", "each").await?;
    assert_eq!((&step["template"], &step["lastWorkflow"]), (&json!("release@1"), &two[0]["uid"]));
    let explained = api.get(&format!("{WORKFLOWS}/all:explain")).await?;
    assert!(explained.to_string().contains("of step each: step go waits for its signal"), "{explained}");

    // The third one has the version with which the step has started.
    template(&api, "release", parameters, release("other")).await?;
    cluster.kill().await;
    cluster.restart().await?;
    for one in &two {
        signal(&api, one).await?;
    }
    tasks::eventually("the third workflow", async || Ok(nested(&api, "all").await?.len() == 3)).await?;
    signal(&api, &nested(&api, "all").await?[0]).await?;
    let ended = api.ended("all").await?;
    let text = "released a+released b+released c";
    assert_eq!(ended["status"]["outputs"]["text"], text, "{ended}");
    assert_eq!(nested(&api, "all").await?.len(), 4);

    let id = two[0]["uid"].as_str().context("an id")?;
    let refused = api.http.delete(format!("{}{WORKFLOWS}/{id}", api.base)).send().await?.text().await?;
    assert!(refused.contains("WORKFLOW_IS_STEP"), "{refused}");
    // The template is another one: its workflows run again, and what follows from them.
    let rerun = json!({ "reuseResults": true });
    let (status, made) = api.post(&format!("{WORKFLOWS}/all:rerun"), &rerun).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    tasks::eventually("two workflows", async || Ok(nested(&api, "all").await?.len() == 2)).await?;
    let (_, cancelled) = api.post(&format!("{WORKFLOWS}/all:cancel"), &json!({})).await?;
    assert_eq!(cancelled["status"]["cancelled"], true, "{cancelled}");
    assert_eq!(api.ended("all").await?["status"]["state"], "WORKFLOW_STATE_CANCELLED");
    for one in nested(&api, "all").await? {
        assert_eq!(one["status"]["state"], "WORKFLOW_STATE_CANCELLED", "{one}");
    }
    // Of the first run, whose template it was, nothing runs again.
    let first = ended["uid"].as_str().context("an id")?;
    let steps = json!([{ "name": "echo", "workflow": { "spec": { "steps": [{ "name": "a", "task": echoes("x") }] } } }]);
    api.create("same", json!({ "steps": steps })).await?;
    api.ended("same").await?;
    let (status, made) = api.post(&format!("{WORKFLOWS}/same:rerun"), &rerun).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    api.ended("same").await?;
    assert_eq!(
        (&api.step("same", "echo").await?["reused"], nested(&api, "same").await?.len()),
        (&json!(true), 0)
    );
    let deleted = api.http.delete(format!("{}{WORKFLOWS}/{first}", api.base)).send().await?;
    assert_eq!(deleted.status(), StatusCode::OK);
    tasks::eventually("the removal of its workflows", async || {
        let found = api.http.get(format!("{}{WORKFLOWS}/{id}", api.base)).send().await?;
        Ok(found.status() == StatusCode::NOT_FOUND)
    })
    .await?;
    drop(worker);
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn template_created_again_is_another_one() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let waits = |name: &str| json!({ "steps": [{ "name": name, "wait": { "signal": "go" } }] });
    template(&api, "release", json!([]), waits("old")).await?;
    let each = json!({ "items": "[1, 2]", "maxParallel": 1 });
    let steps = json!([{ "name": "each", "forEach": each, "workflow": { "template": "release" } }]);
    api.create("again", json!({ "steps": steps })).await?;
    tasks::eventually("the first workflow", async || Ok(nested(&api, "again").await?.len() == 1)).await?;
    let deleted = api.http.delete(format!("{}{TEMPLATES}/release", api.base)).send().await?;
    assert_eq!(deleted.status(), StatusCode::OK);
    template(&api, "release", json!([]), waits("new")).await?;
    signal(&api, &nested(&api, "again").await?[0]).await?;
    let ended = api.ended("again").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
    assert!(ended.to_string().contains("template release was deleted and created again"), "{ended}");
    assert_eq!(api.step("again", "each").await?["template"], "release@1");
    Ok(())
}

#[tokio::test]
async fn nested_failures_and_bounds_reach_the_outside() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let failing = json!({ "steps": [{ "name": "bad", "task": fails() }] });
    api.create("fails", json!({ "steps": [{ "name": "call", "workflow": { "spec": failing } }] })).await?;
    let ended = api.ended("fails").await?;
    assert_eq!(ended["status"]["message"], "step call: its workflow has failed", "{ended}");
    let explained = api.get(&format!("{WORKFLOWS}/fails:explain")).await?;
    assert!(explained.to_string().contains("of step call: step bad: its task has failed"), "{explained}");

    let unknown = json!({ "steps": [{ "name": "a", "compensate": { "prompt": "x", "kind": "nope" }, "workflow": { "spec": failing } }] });
    let refused = template(&api, "kinds", json!([]), unknown).await.unwrap_err().to_string();
    assert!(refused.contains("nope is not a kind of the namespace"), "{refused}");
    // A template that runs itself.
    template(
        &api,
        "again",
        json!([]),
        json!({ "steps": [{ "name": "call", "workflow": { "template": "again" } }] }),
    )
    .await?;
    let call = |name: &str| json!({ "steps": [{ "name": "call", "workflow": { "template": name } }] });
    api.create("deep", call("again")).await?;
    assert_eq!(api.ended("deep").await?["status"]["state"], "WORKFLOW_STATE_FAILED");
    let explained = api.get(&format!("{WORKFLOWS}/deep:explain")).await?;
    assert!(explained.to_string().contains("at most 4 deep"), "{explained}");
    api.create("none", call("missing")).await?;
    let ended = api.ended("none").await?;
    assert!(ended["status"]["message"].as_str().unwrap_or_default().contains("does not exist"), "{ended}");

    // A group that a workflow around it holds.
    let held = json!({ "group": "one" });
    let inner = json!({ "concurrency": held, "steps": [{ "name": "a", "task": echoes("x") }] });
    let spec = json!({ "concurrency": held, "steps": [{ "name": "call", "workflow": { "spec": inner } }] });
    api.create("locked", spec).await?;
    let ended = api.ended("locked").await?;
    assert!(
        ended["status"]["message"].as_str().unwrap_or_default().contains("holds its concurrency group"),
        "{ended}"
    );

    let step = json!({ "name": "a", "task": echoes("x") });
    for (wrong, why) in [
        (json!({ "workflow": {} }), "needs a template or a spec"),
        (
            json!({ "workflow": { "template": "a", "spec": { "steps": [step] } } }),
            "must not have a template and a spec",
        ),
        (json!({ "workflow": { "spec": { "steps": [] } } }), "steps: is empty"),
        (json!({ "workflow": { "spec": { "inputs": { "a": 1 }, "steps": [step] } } }), "inputs of the step"),
        (
            json!({ "workflow": { "template": "a" }, "forEach": { "items": "[1]" }, "repeat": { "until": "true", "max": 2 } }),
            "together with for_each",
        ),
        (json!({ "workflow": { "template": "a", "inputs": { "a": "${{ steps.no.result }}" } } }), "no"),
    ] {
        let mut wrong = wrong;
        wrong["name"] = json!("call");
        let body = json!({ "spec": { "steps": [wrong] } });
        let (status, answer) = api.post(WORKFLOWS, &body).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer.to_string().contains(why), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn priority_reaches_steps_at_any_depth() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let api = Api::new(&cluster)?;
    let deep = json!({ "steps": [{ "name": "inner", "task": echoes("x") }] });
    let below = json!({ "steps": [
        { "name": "plain", "task": echoes("x") },
        { "name": "own", "priority": 2, "task": echoes("x") },
        { "name": "deep", "workflow": { "spec": deep } },
    ] });
    let steps = json!([
        { "name": "outer", "priority": 8, "workflow": { "spec": below } },
        { "name": "other", "task": echoes("x") },
    ]);
    api.create("urgent", json!({ "steps": steps })).await?;
    let expected = [("inner", 8), ("other", 5), ("own", 2), ("plain", 8)];
    tasks::eventually("all tasks", async || {
        let all = api.get("/api/v1/namespaces/default/tasks?pageSize=100").await?;
        let all = all["tasks"].as_array().cloned().unwrap_or_default();
        let of = |task: &Value| Some((task["step"]["step"].as_str()?.to_owned(), task["priority"].as_i64()?));
        let mut found: Vec<_> = all.iter().filter_map(of).collect();
        found.sort_unstable();
        Ok(found.iter().map(|(step, priority)| (step.as_str(), *priority)).eq(expected))
    })
    .await
}
