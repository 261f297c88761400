//! Manifests in whatever order, and those that wait for each other for ever.

use anyhow::Result;
use rota_testkit::{history, tasks};
use serde_json::Value;

use crate::{Graces, Stage};

const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {management: External, runtime: {scripted: {}}}
";

fn task(name: &str, on: &[&str]) -> String {
    let on: Vec<_> = on.iter().map(|one| format!("{{task: {one}}}")).collect();
    format!(
        "---\napiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\n\
         spec: {{agent: actor, dependsOn: [{}], runtime: {{scripted: {{steps: [{{succeed: from {name}}}]}}}}}}\n",
        on.join(", ")
    )
}

async fn read(stage: &Stage, name: &str) -> Value {
    stage.rota(&["get", "task", name, "-o", "json"]).await.json()
}

/// What it waits for.
async fn waits(stage: &Stage, name: &str) -> Vec<String> {
    let task = read(stage, name).await;
    assert_eq!(task["status"]["state"], "TASK_STATE_PENDING");
    let waiting = task["status"]["waiting"].as_array().unwrap();
    let word = |one: &Value| format!("{} {}", one["reason"].as_str().unwrap(), one["what"].as_str().unwrap());
    waiting.iter().map(word).map(|word| word.replace("WAIT_REASON_", "")).collect()
}

#[tokio::test]
async fn dependents_then_what_they_need_then_the_agent() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let last =
        stage.apply("last.yaml", &(task("last", &["left", "right"]) + &task("right", &["left"]))).await;
    assert_eq!(last.done(), "task/last created\ntask/right created");
    assert_eq!(
        waits(&stage, "last").await,
        ["DEPENDENCY_MISSING left", "DEPENDENCY right", "AGENT_MISSING actor"]
    );
    assert_eq!(stage.apply("left.yaml", &task("left", &[])).await.done(), "task/left created");
    assert_eq!(waits(&stage, "left").await, ["AGENT_MISSING actor"]);
    let explained = stage.rota(&["explain", "left"]).await.done();
    assert!(explained.contains("actor"), "{explained}");
    assert_eq!(stage.apply("agent.yaml", AGENT).await.done(), "agent/actor created");
    let _worker = stage.worker("actor", "one", 2).await?;
    stage.rota(&["wait", "last", "left", "right"]).await.done();
    for name in ["last", "left", "right"] {
        assert_eq!(read(&stage, name).await["status"]["result"]["text"], format!("from {name}"));
    }
    // The same once more changes nothing.
    let again = stage.rota(&["apply", "-f", "last.yaml", "-f", "left.yaml", "-f", "agent.yaml"]).await.done();
    assert!(again.lines().all(|line| line.contains(" unchanged")), "{again}");
    assert_eq!(again.lines().next(), Some("agent/actor unchanged"));
    history::check(&stage.client()?, true).await?.check()
}

#[tokio::test]
async fn a_cycle_fails_with_its_path_when_its_last_edge_comes() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    stage.apply("agent.yaml", AGENT).await.done();
    stage.apply("open.yaml", &(task("a", &["b"]) + &task("b", &["c"]))).await.done();
    assert_eq!(waits(&stage, "b").await, ["DEPENDENCY_MISSING c"]);
    let watched = stage.command(&["wait", "a", "b"]);
    let watched = crate::process::Process::start("wait", watched);
    stage.apply("closed.yaml", &task("c", &["a"])).await.done();
    assert_eq!(watched.ended().await.status.code(), Some(1));
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(read(&stage, name).await["uid"].as_str().unwrap().to_owned());
    }
    for name in ["a", "b", "c"] {
        let task = read(&stage, name).await;
        assert_eq!(task["status"]["state"], "TASK_STATE_FAILED");
        let message = task["status"]["failure"]["message"].as_str().unwrap();
        assert!(ids.iter().all(|id| message.contains(id.as_str())), "{message}");
        let described = stage.rota(&["describe", name]).await.done();
        assert!(described.contains("dependency"), "{described}");
    }
    // What is no part of it is done.
    stage.apply("other.yaml", &task("other", &[])).await.done();
    let _worker = stage.worker("actor", "one", 1).await?;
    stage.rota(&["wait", "other"]).await.done();
    tasks::until_state(
        &stage.client()?,
        "namespaces/default/tasks/other",
        rota_proto::v1::TaskState::Succeeded,
    )
    .await?;
    history::check(&stage.client()?, true).await?.check()
}
