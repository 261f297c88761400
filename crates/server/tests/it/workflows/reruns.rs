//! Reruns that take over what has succeeded.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_proto::{names, v1};
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::{Value, json};

use super::nested::nested;
use super::{Api, WORKFLOWS, echoes};

/// Returns the steps that have run, as opposed to those that were taken over, with the number of tasks of the workflow.
async fn ran(api: &Api, id: &str) -> Result<(Vec<String>, usize)> {
    let steps = api.get(&format!("{WORKFLOWS}/{id}/steps")).await?;
    let steps = steps["steps"].as_array().cloned().unwrap_or_default();
    let ran = steps.iter().filter(|step| step["reused"] != true && step["state"] == "STEP_STATE_SUCCEEDED");
    let names = ran.filter_map(|step| step["name"].as_str().map(str::to_owned)).collect();
    let made = api.get(&format!("/api/v1/namespaces/default/tasks?filter.workflow={id}")).await?;
    Ok((names, made["tasks"].as_array().map_or(0, Vec::len)))
}

async fn rerun(api: &Api, id: &str, body: Value) -> Result<Value> {
    let (status, made) = api.post(&format!("{WORKFLOWS}/{id}:rerun"), &body).await?;
    anyhow::ensure!(status == StatusCode::OK, "{made}");
    let id = made["uid"].as_str().context("an id")?;
    api.ended(id).await?;
    api.workflow(id).await
}

fn id(workflow: &Value) -> &str {
    workflow["uid"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn rerun_takes_over_what_would_run_the_same() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let spec = json!({
            "inputs": { "word": "a", "broken": true, "modules": ["x", "y"] },
            "steps": [
                { "name": "one", "task": echoes("${{ inputs.word }}"), "outputs": { "loud": "${{ steps.one.result.text }}!" } },
                { "name": "fan", "needs": [{ "step": "one" }], "task": echoes("${{ item }}${{ steps.one.outputs.loud }}"),
                  "forEach": { "items": "inputs.modules" } },
                { "name": "ask", "needs": [{ "step": "fan" }], "approval": { "prompt": "With ${{ inputs.word }}?" } },
                // The output of a broken one cannot be evaluated, which fails it.
                { "name": "bad", "needs": [{ "step": "ask" }], "task": echoes("${{ inputs.broken }}"),
                  "outputs": { "value": "${{ [1][inputs.broken ? 5 : 0] }}" } },
                { "name": "end", "needs": [{ "step": "bad" }, { "step": "fan" }],
                  "task": echoes("${{ steps.fan.results.map(r, r.text).join(' ') }} ${{ steps.ask.result.comment }}") },
            ],
            "finally": [{ "name": "clean", "task": echoes("clean") }],
            "outputs": { "text": "${{ steps.end.result.text }}" },
        });
        let first = api.create("again", spec).await?;
        api.until_step("again", "ask", "RUNNING").await?;
        let decide = json!({ "step": "ask", "decision": "STEP_DECISION_APPROVE", "comment": "fine" });
        assert_eq!(api.post(&format!("{WORKFLOWS}/again:decide"), &decide).await?.0, StatusCode::OK);
        let ended = api.ended("again").await?;
        assert_eq!(ended["status"]["failedStep"], "bad", "{ended}");

        let reuse = json!({ "reuseResults": true, "inputs": { "word": "a", "broken": false, "modules": ["x", "y"] } });
        let second = rerun(&api, id(&first), reuse).await?;
        assert_eq!(second["status"]["outputs"]["text"], "xa! ya! fine", "{second}");
        assert_eq!(
            ran(&api, id(&second)).await?,
            (["bad", "end", "clean"].map(str::to_owned).to_vec(), 3),
            "neither tasks nor the person are asked again"
        );

        // What was taken over is taken over again, and a step that is named runs with those that need it.
        let deleted = api.http.delete(format!("{}{WORKFLOWS}/{}", api.base, id(&first))).send().await?;
        assert_eq!(deleted.status(), StatusCode::OK);
        let from = json!({ "reuseResults": true, "steps": ["bad"] });
        let third = rerun(&api, id(&second), from).await?;
        assert_eq!(third["status"]["outputs"]["text"], "xa! ya! fine");
        assert_eq!(ran(&api, id(&third)).await?.0, ["bad", "end", "clean"]);

        // Another input runs what reads it.
        let other =
            json!({ "reuseResults": true, "inputs": { "word": "a", "broken": false, "modules": ["z"] } });
        let (_, made) = api.post(&format!("{WORKFLOWS}/{}:rerun", id(&third)), &other).await?;
        // The person has approved what is different now.
        api.until_step(id(&made), "ask", "RUNNING").await?;
        assert_eq!(api.post(&format!("{WORKFLOWS}/{}:decide", id(&made)), &decide).await?.0, StatusCode::OK);
        let fourth = api.ended(id(&made)).await?;
        assert_eq!(fourth["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{fourth}");
        assert_eq!(
            ran(&api, id(&made)).await?,
            (["fan", "ask", "end", "clean"].map(str::to_owned).to_vec(), 3)
        );

        let (status, refused) =
            api.post(&format!("{WORKFLOWS}/{}:rerun", id(&made)), &json!({ "steps": ["bad"] })).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        let unknown = json!({ "reuseResults": true, "steps": ["nope"] });
        let (status, refused) = api.post(&format!("{WORKFLOWS}/{}:rerun", id(&made)), &unknown).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}

/// Returns the id of the workflow for a module, of the two that are steps of another.
async fn element(api: &Api, around: &str, module: &str) -> Result<String> {
    tasks::eventually("two workflows", async || Ok(nested(api, around).await?.len() == 2)).await?;
    for one in nested(api, around).await? {
        if api.workflow(id(&one)).await?["spec"]["inputs"]["module"] == module {
            return Ok(id(&one).to_owned());
        }
    }
    anyhow::bail!("there is no workflow for {module}")
}

#[tokio::test]
async fn rerun_continues_within_nested_workflows() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let deploy = json!({
            "steps": [
                { "name": "build", "task": echoes("${{ inputs.module }}${{ inputs.word }}") },
                { "name": "ask", "needs": [{ "step": "build" }],
                  "approval": { "prompt": "Deploy ${{ steps.build.result.text }}?" } },
            ],
            "outputs": { "text": "${{ steps.build.result.text }}" },
        });
        let inputs = json!({ "module": "${{ item }}", "word": "${{ inputs.word }}" });
        let spec = json!({
            "inputs": { "word": "!", "modules": ["x", "y"] },
            "steps": [{ "name": "each", "forEach": { "items": "inputs.modules" },
                        "workflow": { "spec": deploy, "inputs": inputs } }],
            "outputs": { "text": "${{ steps.each.results.map(r, r.text).join(' ') }}" },
        });
        let decide = async |of: &str, decision: &str| -> Result<()> {
            api.until_step(of, "ask", "RUNNING").await?;
            let body = json!({ "step": "ask", "decision": format!("STEP_DECISION_{decision}") });
            let (status, decided) = api.post(&format!("{WORKFLOWS}/{of}:decide"), &body).await?;
            anyhow::ensure!(status == StatusCode::OK, "{decided}");
            api.ended(of).await.map(drop)
        };
        let first = api.create("deploy", spec).await?;
        let (x, y) = (element(&api, id(&first), "x").await?, element(&api, id(&first), "y").await?);
        decide(&x, "APPROVE").await?;
        decide(&y, "REJECT").await?;
        assert_eq!(api.ended(id(&first)).await?["status"]["state"], "WORKFLOW_STATE_FAILED");

        let path = format!("{WORKFLOWS}/{}:rerun", id(&first));
        let (status, second) = api.post(&path, &json!({ "reuseResults": true })).await?;
        assert_eq!(status, StatusCode::OK, "{second}");
        let again = element(&api, id(&second), "y").await?;
        decide(&again, "APPROVE").await?;
        let ended = api.ended(id(&second)).await?;
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
        assert_eq!(ended["status"]["outputs"]["text"], "x! y!", "the results of the first steps are kept");
        assert_eq!(ran(&api, &again).await?, (vec!["ask".to_owned()], 0));
        assert_eq!(api.step(&again, "build").await?["reused"], true);
        let whole = element(&api, id(&second), "x").await?;
        assert_eq!(ran(&api, &whole).await?, (Vec::new(), 0), "nothing of what has succeeded runs again");
        assert_eq!(api.workflow(&again).await?["rerunOf"], y.as_str());
        assert_eq!(api.workflow(&y).await?["status"]["rerun"], again.as_str());

        // With another input all of it runs.
        let other = json!({ "reuseResults": true, "inputs": { "word": "?" } });
        let (status, third) = api.post(&path, &other).await?;
        assert_eq!(status, StatusCode::OK, "{third}");
        for module in ["x", "y"] {
            let one = element(&api, id(&third), module).await?;
            decide(&one, "APPROVE").await?;
            assert_eq!(ran(&api, &one).await?, (["build", "ask"].map(str::to_owned).to_vec(), 1));
        }
        let ended = api.ended(id(&third)).await?;
        assert_eq!(ended["status"]["outputs"]["text"], "x? y?", "{ended}");
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn compensated_steps_run_again() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let spec = json!({
        "inputs": { "broken": true },
        "onFailure": "ON_STEP_FAILURE_COMPENSATE",
        "steps": [
            { "name": "look", "task": echoes("seen") },
            { "name": "publish", "needs": [{ "step": "look" }], "task": echoes("published"), "compensate": echoes("withdrawn") },
            { "name": "bad", "needs": [{ "step": "publish" }], "task": echoes("x"),
              "outputs": { "value": "${{ [1][inputs.broken ? 5 : 0] }}" } },
        ],
    });
    let first = api.create("undone", spec).await?;
    assert_eq!(api.ended("undone").await?["status"]["state"], "WORKFLOW_STATE_FAILED");
    let second =
        rerun(&api, id(&first), json!({ "reuseResults": true, "inputs": { "broken": false } })).await?;
    assert_eq!(second["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{second}");
    assert_eq!(ran(&api, id(&second)).await?.0, ["publish", "bad"], "what was withdrawn is published again");
    // A rerun of one that has succeeded withdraws what it has published: another rerun must not take it over.
    let broken = json!({ "reuseResults": true, "steps": ["bad"], "inputs": { "broken": true } });
    assert_eq!(rerun(&api, id(&second), broken).await?["status"]["state"], "WORKFLOW_STATE_FAILED");
    let third = rerun(&api, id(&second), json!({ "reuseResults": true })).await?;
    assert_eq!(third["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{third}");
    assert_eq!(ran(&api, id(&third)).await?.0, ["publish"]);
    Ok(())
}

#[tokio::test]
async fn repeated_step_is_reused_if_it_would_end() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let spec = json!({
            "inputs": { "rounds": 2 },
            "steps": [
                { "name": "again", "task": echoes("x"),
                  "repeat": { "until": "round >= inputs.rounds && steps.again.result.text == 'x'", "max": 5 },
                  "outputs": { "text": "${{ steps.again.result.text }}" } },
                { "name": "before", "task": echoes("y"), "repeat": { "until": "previous != null", "max": 5 } },
            ],
        });
        let first = api.create("rounds", spec).await?;
        assert_eq!(api.ended("rounds").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
        // Results of rounds before the last one are not copied.
        let second = rerun(&api, id(&first), json!({ "reuseResults": true })).await?;
        assert_eq!(second["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{second}");
        assert_eq!(ran(&api, id(&second)).await?, (vec!["before".to_owned()], 2));
        assert_eq!(api.step(id(&second), "again").await?["round"], 2);
        // With the same task, and a condition that does not hold yet.
        let longer = json!({ "reuseResults": true, "inputs": { "rounds": 3 } });
        let third = rerun(&api, id(&first), longer).await?;
        assert_eq!(third["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{third}");
        assert_eq!(ran(&api, id(&third)).await?, (["again", "before"].map(str::to_owned).to_vec(), 5));
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn steps_run_again_after_their_kind_has_changed() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let put = async |frame: &str| {
        let spec = v1::TaskKindSpec { frame: format!("{frame} ${{{{ prompt }}}}"), ..Default::default() };
        let name = names::kind(tasks::NAMESPACE, "notes");
        let kind = Some(v1::TaskKind { name, spec: Some(spec), ..Default::default() });
        cluster
            .client()
            .put_task_kind(v1::PutTaskKindRequest {
                task_kind: kind,
                validate_only: false,
                ..Default::default()
            })
            .await
    };
    put("First").await?;
    let mut noted = echoes("x");
    noted["kind"] = json!("notes");
    let spec =
        json!({ "steps": [{ "name": "note", "task": noted }, { "name": "plain", "task": echoes("y") }] });
    let first = api.create("noted", spec).await?;
    assert_eq!(api.ended("noted").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
    let reuse = json!({ "reuseResults": true });
    let second = rerun(&api, id(&first), reuse.clone()).await?;
    assert_eq!(ran(&api, id(&second)).await?.0, Vec::<String>::new(), "{second}");
    put("Second").await?;
    let third = rerun(&api, id(&second), reuse).await?;
    assert_eq!(ran(&api, id(&third)).await?.0, ["note"], "{third}");
    Ok(())
}

#[tokio::test]
async fn large_fan_out_after_a_reused_step_is_reused() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 64)?;
    let api = Api::new(&cluster)?;
    let list: Vec<_> = (0..257).collect();
    let spec = json!({
        "inputs": { "list": list },
        "steps": [
            { "name": "one", "task": echoes("1") },
            { "name": "fan", "needs": [{ "step": "one" }], "task": echoes("${{ item }}${{ steps.one.result.text }}"),
              "forEach": { "items": "inputs.list" } },
            { "name": "end", "needs": [{ "step": "fan" }], "task": echoes("${{ size(steps.fan.results) }}") },
        ],
    });
    let first = api.create("large", spec).await?;
    assert_eq!(api.ended("large").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
    let second = rerun(&api, id(&first), json!({ "reuseResults": true, "steps": ["end"] })).await?;
    assert_eq!(second["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{second}");
    assert_eq!(ran(&api, id(&second)).await?, (vec!["end".to_owned()], 1));
    // With the id of the run, which differs.
    let own = json!({ "inputs": { "list": list }, "steps": [
        { "name": "fan", "task": echoes("${{ item }} of ${{ workflow.id }}"), "forEach": { "items": "inputs.list" } },
    ] });
    let first = api.create("own", own).await?;
    assert_eq!(api.ended("own").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
    let second = rerun(&api, id(&first), json!({ "reuseResults": true })).await?;
    assert_eq!(ran(&api, id(&second)).await?.0, ["fan"], "{second}");
    Ok(())
}
