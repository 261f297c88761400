//! Workflows over the API, with scripted workers.

mod adding;
mod approvals;
mod attempts;
mod bounds;
mod budgets;
mod compensations;
mod concurrent;
mod control;
mod ends;
mod feed;
mod files;
mod groups;
mod kills;
mod levels;
mod nested;
mod nested_approvals;
mod overload;
mod reruns;
mod step_results;
mod targets;
mod typed;

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_proto::v1::{self, workflow_service_client::WorkflowServiceClient};
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::{Value, json};

const WORKFLOWS: &str = "/api/v1/namespaces/default/workflows";

struct Api {
    base: String,
    http: reqwest::Client,
}

impl Api {
    fn new(cluster: &Cluster) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { base: format!("http://{}", cluster.addr()), http })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status == StatusCode::OK, "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, Value)> {
        let answer = self.http.post(format!("{}{path}", self.base)).json(body).send().await?;
        Ok((answer.status(), answer.json().await?))
    }

    async fn create(&self, alias: &str, spec: Value) -> Result<Value> {
        let (status, made) = self.post(WORKFLOWS, &json!({ "alias": alias, "spec": spec })).await?;
        anyhow::ensure!(status == StatusCode::OK, "{made}");
        Ok(made)
    }

    async fn workflow(&self, alias: &str) -> Result<Value> {
        self.get(&format!("{WORKFLOWS}/{alias}")).await
    }

    async fn step(&self, alias: &str, name: &str) -> Result<Value> {
        let steps = self.get(&format!("{WORKFLOWS}/{alias}/steps")).await?;
        let found = steps["steps"].as_array().into_iter().flatten().find(|step| step["name"] == name);
        found.cloned().context(name.to_owned())
    }

    async fn until_step(&self, alias: &str, name: &str, state: &str) -> Result<Value> {
        let wanted = format!("STEP_STATE_{state}");
        tasks::eventually(&format!("{name} {state}"), || async {
            Ok(self.step(alias, name).await?["state"] == wanted)
        })
        .await?;
        self.step(alias, name).await
    }

    /// Watches a workflow until its end, and returns it.
    async fn ended(&self, alias: &str) -> Result<Value> {
        let watch = self.http.get(format!("{}{WORKFLOWS}/{alias}:watch", self.base)).send();
        let text = tokio::time::timeout(tasks::WAIT_TIMEOUT, async { watch.await?.text().await }).await??;
        let last = text.lines().last().context("no line")?;
        Ok(serde_json::from_str::<Value>(last)?["workflow"].clone())
    }
}

/// Checks that workflows with these steps are refused, for these reasons.
async fn refuses_steps(api: &Api, steps: impl IntoIterator<Item = (Value, &str)>) -> Result<()> {
    for (mut step, why) in steps {
        step["name"] = json!("a");
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": { "steps": [step] } })).await?;
        assert!(status == StatusCode::BAD_REQUEST && refused.to_string().contains(why), "{why}: {refused}");
    }
    Ok(())
}

/// A task that succeeds with a text.
fn echoes(text: &str) -> Value {
    json!({ "target": { "agent": "echo" }, "runtime": { "scripted": { "steps": [{ "succeed": text }] } } })
}

fn fails() -> Value {
    let fail = json!({ "class": "invalid", "message": "no" });
    json!({
        "target": { "agent": "echo" }, "retry": { "maxAttempts": 1 },
        "runtime": { "scripted": { "steps": [{ "fail": fail }] } },
    })
}

#[tokio::test]
async fn graph_runs_with_all_kinds_of_steps() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let spec = json!({
            "inputs": { "modules": ["a", "b", "c"], "deploy": true, "number": 7 },
            "steps": [
                { "name": "plan", "task": echoes("planned") },
                { "name": "each", "needs": [{ "step": "plan" }], "task": echoes("did ${{ item }}"),
                  "forEach": { "items": "inputs.modules", "maxParallel": 2 } },
                { "name": "skip", "needs": [{ "step": "plan" }], "condition": "!inputs.deploy", "task": echoes("never") },
                { "name": "again", "needs": [{ "step": "each" }], "task": echoes("round ${{ round }}${{ round > 1 ? ' after ' + previous.text : '' }}"),
                  "repeat": { "until": "round >= 3", "max": 5 }, "outputs": { "last": "${{ steps.again.result.text }}" } },
                { "name": "ask", "needs": [{ "step": "again" }, { "step": "skip" }],
                  "approval": { "prompt": "Deploy ${{ steps.again.outputs.last }}?" } },
                { "name": "go", "needs": [{ "step": "ask" }], "wait": { "signal": "go" } },
                { "name": "end", "needs": [{ "step": "go" }],
                  "task": echoes("${{ steps.each.results.map(r, r.text).join('+') }} ${{ steps.go.result.by }}") },
            ],
            "finally": [{ "name": "clean", "task": echoes("${{ steps.end.state }} ${{ steps.skip.state }}") }],
            "outputs": { "text": "${{ steps.end.result.text }}", "count": "${{ size(steps.each.results) }}", "next": "${{ inputs.number + 1 }}" },
        });
        api.create("all", spec).await?;
        let asked = api.until_step("all", "ask", "RUNNING").await?;
        assert_eq!(asked["prompt"], "Deploy round 3 after round 2 after round 1?");
        assert_eq!(api.step("all", "skip").await?["state"], "STEP_STATE_SKIPPED");
        assert_eq!(api.step("all", "again").await?["round"], 3);
        let explained = api.get(&format!("{WORKFLOWS}/all:explain")).await?;
        assert_eq!(explained["causes"][0]["code"], "step_approval", "{explained}");
        // A signal may arrive before its step waits for it.
        let (_, sent) = api
            .post(&format!("{WORKFLOWS}/all:signal"), &json!({ "signal": "go", "payload": { "by": "me" } }))
            .await?;
        assert_eq!(sent["steps"], 1);
        let decide = json!({ "step": "ask", "decision": "STEP_DECISION_APPROVE", "comment": "fine" });
        let (status, decided) = api.post(&format!("{WORKFLOWS}/all:decide"), &decide).await?;
        assert_eq!(status, StatusCode::OK, "{decided}");
        let ended = api.ended("all").await?;
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
        assert_eq!(
            ended["status"]["outputs"],
            json!({ "text": "did a+did b+did c me", "count": 3.0, "next": 8.0 })
        );
        // A second decision changes nothing.
        let (status, _) = api.post(&format!("{WORKFLOWS}/all:decide"), &decide).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        // The tasks name their places: one, three, three rounds, one, one.
        let id = ended["uid"].as_str().context("an id")?;
        let made =
            api.get(&format!("/api/v1/namespaces/default/tasks?filter.workflow={id}&pageSize=100")).await?;
        let made = made["tasks"].as_array().cloned().unwrap_or_default();
        assert_eq!(made.len(), 9);
        let cleaned = api.step("all", "clean").await?["lastTask"].clone();
        let task = api
            .get(&format!("/api/v1/namespaces/default/tasks/{}", cleaned.as_str().context("a task")?))
            .await?;
        assert_eq!(task["status"]["result"]["text"], "SUCCEEDED SKIPPED");
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn killed_control_plane_compensates_in_reverse() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let spec = json!({
        "onFailure": "ON_STEP_FAILURE_COMPENSATE",
        "steps": [
            { "name": "one", "task": echoes("1"), "compensate": echoes("undone ${{ steps.one.result.text }}") },
            { "name": "two", "needs": [{ "step": "one" }], "task": echoes("2"), "compensate": echoes("undone 2") },
            { "name": "ask", "needs": [{ "step": "two" }], "approval": { "prompt": "Go on?" } },
            { "name": "bad", "needs": [{ "step": "ask" }], "task": fails() },
            { "name": "never", "needs": [{ "step": "bad" }], "task": echoes("never") },
        ],
        "finally": [{ "name": "report", "task": echoes("${{ workflow.status }} ${{ workflow.failedStep }}: ${{ workflow.message }}") }],
    });
    {
        let _worker = cluster.worker("echo", "one", 1)?;
        let api = Api::new(&cluster)?;
        api.create("undo", spec).await?;
        api.until_step("undo", "ask", "RUNNING").await?;
    }
    cluster.kill().await;
    cluster.restart().await?;
    let _worker = cluster.worker("echo", "two", 1)?;
    let api = Api::new(&cluster)?;
    let decide = json!({ "step": "ask", "decision": "STEP_DECISION_APPROVE" });
    assert_eq!(api.post(&format!("{WORKFLOWS}/undo:decide"), &decide).await?.0, StatusCode::OK);
    let ended = api.ended("undo").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
    assert_eq!(ended["status"]["failedStep"], "bad");
    let (one, two) = (api.step("undo", "one").await?, api.step("undo", "two").await?);
    assert_eq!(
        (&one["compensation"], &two["compensation"]),
        (&json!("STEP_STATE_SUCCEEDED"), &json!("STEP_STATE_SUCCEEDED"))
    );
    let text = async |step: &Value| -> Result<Value> {
        let id = step["lastTask"].as_str().context("a task")?;
        api.get(&format!("/api/v1/namespaces/default/tasks/{id}")).await
    };
    let (undone_one, undone_two) = (text(&one).await?, text(&two).await?);
    assert_eq!(undone_one["status"]["result"]["text"], "undone 1");
    let end = |task: &Value| task["status"]["endTime"].as_str().unwrap_or_default().to_owned();
    assert!(end(&undone_two) < end(&undone_one), "the last step is compensated first");
    assert_eq!(api.step("undo", "never").await?["state"], "STEP_STATE_SKIPPED");
    let report = text(&api.step("undo", "report").await?).await?;
    assert_eq!(report["status"]["result"]["text"], "FAILED bad: step bad: its task has failed");
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn cancelled_and_paused_workflows_start_nothing() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let hang =
        json!({ "target": { "agent": "echo" }, "runtime": { "scripted": { "steps": [{ "hang": true }] } } });
    let steps = json!([
        { "name": "hang", "task": hang },
        { "name": "next", "needs": [{ "step": "hang" }], "task": echoes("never") },
    ]);
    api.create("stop", json!({ "steps": steps })).await?;
    let running = api.until_step("stop", "hang", "RUNNING").await?;
    // On a worker: such tasks are in memory.
    let task = format!("namespaces/default/tasks/{}", running["lastTask"].as_str().context("a task")?);
    tasks::until_state(cluster.client(), &task, v1::TaskState::Running).await?;
    let (_, cancelled) =
        api.post(&format!("{WORKFLOWS}/stop:cancel"), &json!({ "reason": "enough" })).await?;
    assert_eq!(cancelled["status"]["cancelled"], true);
    let ended = api.ended("stop").await?;
    assert_eq!(
        (&ended["status"]["state"], &ended["status"]["message"]),
        (&json!("WORKFLOW_STATE_CANCELLED"), &json!("enough"))
    );
    assert_eq!(api.step("stop", "next").await?["state"], "STEP_STATE_SKIPPED");

    let spec = json!({ "steps": [
        { "name": "ask", "approval": { "prompt": "?" } },
        { "name": "next", "needs": [{ "step": "ask" }], "task": echoes("done") },
    ] });
    api.create("pause", spec).await?;
    api.until_step("pause", "ask", "RUNNING").await?;
    assert_eq!(api.post(&format!("{WORKFLOWS}/pause:pause"), &json!({})).await?.0, StatusCode::OK);
    let decide = json!({ "step": "ask", "decision": "STEP_DECISION_APPROVE" });
    assert_eq!(api.post(&format!("{WORKFLOWS}/pause:decide"), &decide).await?.0, StatusCode::OK);
    api.until_step("pause", "next", "HELD").await?;
    let paused = api.workflow("pause").await?;
    assert_eq!(paused["status"]["state"], "WORKFLOW_STATE_PAUSED");
    assert_eq!(api.post(&format!("{WORKFLOWS}/pause:resume"), &json!({})).await?.0, StatusCode::OK);
    assert_eq!(api.ended("pause").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");

    // A rerun has the same steps, and other inputs.
    let (status, rerun) =
        api.post(&format!("{WORKFLOWS}/stop:rerun"), &json!({ "inputs": { "a": 1 } })).await?;
    assert_eq!((status, &rerun["rerunOf"]), (StatusCode::OK, &ended["uid"]), "{rerun}");
    api.until_step("stop", "hang", "RUNNING").await?;
    assert_eq!(api.post(&format!("{WORKFLOWS}/stop:cancel"), &json!({})).await?.0, StatusCode::OK);
    api.ended("stop").await?;
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn invalid_workflows_are_refused() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let task = echoes("x");
    for (spec, part) in [
        (json!({}), "steps: is empty"),
        (json!({ "steps": [{ "name": "a" }] }), "needs one of task, approval, wait"),
        (json!({ "steps": [{ "name": "1", "task": task }] }), "is not a step's name"),
        (json!({ "steps": [{ "name": "a", "task": task }, { "name": "a", "task": task }] }), "another step"),
        (
            json!({ "steps": [{ "name": "build", "task": task }, { "name": "b", "needs": [{ "step": "built" }], "task": task }] }),
            "did you mean \"build\"",
        ),
        (
            json!({ "steps": [
            { "name": "a", "needs": [{ "step": "b" }], "task": task }, { "name": "b", "needs": [{ "step": "a" }], "task": task },
        ] }),
            "need each other",
        ),
        (
            json!({ "steps": [{ "name": "a", "task": task }, { "name": "b", "task": echoes("${{ steps.a.result }}") }] }),
            "without needing it",
        ),
        (json!({ "steps": [{ "name": "a", "condition": "inputs.", "task": task }] }), "is invalid"),
        (
            json!({ "concurrency": { "group": "${{ workflow.id }}" }, "steps": [{ "name": "a", "task": task }] }),
            "`inputs` alone",
        ),
        (
            json!({ "steps": [{ "name": "a", "task": task, "concurrency": { "group": "g", "limit": 300 } }] }),
            "steps[0].concurrency.limit",
        ),
        (
            json!({ "concurrency": { "group": "g", "limit": 2, "whenFull": "WHEN_FULL_REPLACE" }, "steps": [{ "name": "a", "task": task }] }),
            "must be 1 with REPLACE",
        ),
        (json!({ "steps": [{ "name": "a", "task": echoes("${{ item }}") }] }), "without for_each"),
        (json!({ "steps": [{ "name": "a", "task": echoes("${{ previous }}") }] }), "only steps with repeat"),
        (json!({ "steps": [{ "name": "a", "task": { "target": { "agent": "UPPER" } } }] }), "agent"),
        (
            json!({ "steps": [{ "name": "a", "task": { "resultSchema": { "type": "nonsense" } } }] }),
            "is not a JSON Schema",
        ),
        (
            json!({ "inputs": { "n": "x" }, "inputsSchema": { "properties": { "n": { "type": "integer" } } },
                 "steps": [{ "name": "a", "task": task }] }),
            "inputs/n",
        ),
    ] {
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": spec })).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        assert!(refused["message"].as_str().unwrap_or_default().contains(part), "{part}: {refused}");
    }
    let dry = api
        .post(
            &format!("{WORKFLOWS}?validateOnly=true"),
            &json!({ "spec": { "steps": [{ "name": "a", "task": task }] } }),
        )
        .await?;
    assert_eq!(dry.0, StatusCode::OK, "{}", dry.1);
    assert_eq!(api.get(WORKFLOWS).await?, json!({}));
    // So does a task with other data than its step asks for.
    let mut other = echoes("no data");
    other["resultSchema"] = json!({ "type": "object", "required": ["n"] });
    other["retry"] = json!({ "maxAttempts": 1 });
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    api.create("other", json!({ "steps": [{ "name": "a", "task": other }] })).await?;
    assert_eq!(api.ended("other").await?["status"]["failedStep"], "a");
    let last = api.step("other", "a").await?["lastTask"].clone();
    let last = format!("/api/v1/namespaces/default/tasks/{}", last.as_str().context("a task")?);
    let failure = api.get(&last).await?["status"]["failure"].clone();
    assert_eq!(failure["class"], "FAILURE_CLASS_AGENT", "{failure}");
    assert!(failure["message"].as_str().unwrap_or_default().contains("schema"), "{failure}");
    // An expression that fails when it is evaluated fails its step, with its reason.
    api.create("late", json!({ "steps": [{ "name": "a", "condition": "inputs.missing", "task": task }] }))
        .await?;
    let ended = api.ended("late").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED");
    assert!(
        ended["status"]["message"].as_str().unwrap_or_default().contains("No such key: missing"),
        "{ended}"
    );
    Ok(())
}

#[tokio::test]
async fn template_makes_workflows_of_parameters() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let api = Api::new(&cluster)?;
    let workflow = json!({
        "steps": [{ "name": "speak", "task": echoes("${{ inputs.what }} ${{ inputs.times * 2 }}") }],
        "outputs": { "spoken": "${{ steps.speak.result.text }}" },
    });
    let parameters =
        json!([{ "name": "what", "schema": { "type": "string" } }, { "name": "times", "default": 2 }]);
    let template = json!({ "spec": { "parameters": parameters, "workflow": workflow } });
    let path = "/api/v1/namespaces/default/templates?workflowTemplateId=shout";
    let (status, made) = api.post(path, &template).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    let create = async |body: Value| {
        let request = v1::CreateWorkflowRequest {
            parent: "namespaces/default".to_owned(),
            template: "shout".to_owned(),
            parameters: Some(serde_json::from_value(body)?),
            workflow: Some(v1::Workflow { alias: "loud".to_owned(), ..v1::Workflow::default() }),
            ..v1::CreateWorkflowRequest::default()
        };
        let mut client = WorkflowServiceClient::connect(api.base.clone()).await?;
        anyhow::Ok(client.create_workflow(request).await)
    };
    let refused = create(json!({ "times": 3 })).await?.unwrap_err();
    assert!(refused.message().contains("no default"), "{refused}");
    create(json!({ "what": "hey" })).await?.map_err(|status| anyhow::anyhow!(status))?;
    let ended = api.ended("loud").await?;
    assert_eq!(ended["status"]["outputs"]["spoken"], "hey 4", "{ended}");
    Ok(())
}
