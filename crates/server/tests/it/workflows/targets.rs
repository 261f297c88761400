//! Lists of agents: any of them for a task, all of them for a step.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_proto::v1::{self, script_step::Kind as Script};
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::json;

use super::{Api, WORKFLOWS};

#[tokio::test]
async fn all_agents_of_a_list_have_a_task_and_any_of_it_takes_one() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    for name in ["one", "two", "three"] {
        let script = tasks::script([Script::Succeed(format!("from {name}"))]);
        tasks::agent(cluster.client(), name, script, &[]).await?;
    }
    // None of the third.
    let workers = [cluster.worker("one", "w1", 1)?, cluster.worker("two", "w2", 1)?];
    let api = Api::new(&cluster)?;
    let agents = |names: &[&str], all: bool| json!({ "agents": { "agents": names, "all": all } });
    let spec = json!({
        "steps": [
            { "name": "all", "task": { "prompt": "x", "target": agents(&["two", "one"], true) } },
            { "name": "any", "needs": [{ "step": "all" }], "task": { "prompt": "x", "target": agents(&["three", "two"], false) } },
        ],
        "outputs": {
            "all": "${{ steps.all.results.map(r, r.text).join(', ') }}", "any": "${{ steps.any.result.text }}",
        },
    });
    api.create("lists", spec).await?;
    let ended = api.ended("lists").await?;
    let outputs = &ended["status"]["outputs"];
    assert_eq!(*outputs, json!({ "all": "from two, from one", "any": "from two" }), "{ended}");
    assert_eq!(api.step("lists", "all").await?["tasksTotal"], 2);

    // The reason names the agents.
    let tasks_path = "/api/v1/namespaces/default/tasks";
    let body = json!({ "spec": { "prompt": "x", "target": agents(&["three"], false) } });
    let (status, made) = api.post(tasks_path, &body).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    let name = made["name"].as_str().context("a name")?.to_owned();
    tasks::eventually("the reason", async || {
        let explained = api.get(&format!("/api/v1/{name}:explain")).await?;
        Ok(explained.to_string().contains("no worker for agents three is connected"))
    })
    .await?;
    let worker = cluster.worker("three", "w3", 1)?;
    tasks::until_state(cluster.client(), &name, v1::TaskState::Succeeded).await?;

    let strict = json!({ "spec": { "runtime": { "scripted": {} }, "management": "MANAGEMENT_EXTERNAL", "overrides": "OVERRIDES_NONE" } });
    let path = "/api/v1/namespaces/default/agents/strict?allowMissing=true";
    let put = api.http.patch(format!("{}{path}", api.base)).json(&strict).send().await?;
    assert_eq!(put.status(), StatusCode::OK, "{}", put.text().await?);
    let mut body = json!({ "spec": { "prompt": "x", "target": agents(&["one", "strict"], false) } });
    body["spec"]["limits"] = json!({ "maxTurns": 3 });
    let (status, refused) = api.post(tasks_path, &body).await?;
    assert_ne!(status, StatusCode::OK);
    assert!(refused.to_string().contains("OVERRIDE_FORBIDDEN"), "{refused}");
    for (target, why) in
        [(agents(&[], false), "at least one"), (agents(&["one"], true), "steps of workflows")]
    {
        let (status, refused) =
            api.post(tasks_path, &json!({ "spec": { "prompt": "x", "target": target } })).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        assert!(refused.to_string().contains(why), "{refused}");
    }
    let each = json!({ "items": "[1]" });
    for (names, prompt, each, until, why) in [
        (vec!["one", "one"], "x", None, "true", "twice"),
        (vec!["one"], "x", Some(each), "true", "with for_each"),
        (vec!["one", "two"], "${{ previous }}", None, "true", "reads `previous`"),
        (vec!["one", "two"], "x", None, "previous != null", "reads `previous`"),
    ] {
        let task = json!({ "prompt": prompt, "target": agents(&names, true) });
        let repeat = json!({ "until": until, "max": 2 });
        let step = json!({ "name": "all", "task": task, "forEach": each, "repeat": repeat });
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": { "steps": [step] } })).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        assert!(refused.to_string().contains(why), "{refused}");
    }
    drop((workers, worker));
    history::check(cluster.client(), true).await?.check()
}
