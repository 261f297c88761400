//! Manifests in any order, and dependency cycles.

use anyhow::Result;
use rota_testkit::{history, tasks};
use serde_json::Value;

use crate::{Fixture, Graces};

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

async fn read(fixture: &Fixture, name: &str) -> Value {
    fixture.rota(&["get", "task", name, "-o", "json"]).await.json()
}

/// Returns what a task waits for.
async fn waits(fixture: &Fixture, name: &str) -> Vec<String> {
    let task = read(fixture, name).await;
    assert_eq!(task["status"]["state"], "TASK_STATE_PENDING");
    let waiting = task["status"]["waiting"].as_array().unwrap();
    let word =
        |one: &Value| format!("{} {}", one["reason"].as_str().unwrap(), one["subject"].as_str().unwrap());
    waiting.iter().map(word).map(|word| word.replace("WAIT_REASON_", "")).collect()
}

#[tokio::test]
async fn manifests_apply_in_any_order() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let last =
        fixture.apply("last.yaml", &(task("last", &["left", "right"]) + &task("right", &["left"]))).await;
    assert_eq!(last.success(), "task/last created\ntask/right created");
    assert_eq!(
        waits(&fixture, "last").await,
        ["DEPENDENCY_MISSING left", "DEPENDENCY right", "AGENT_MISSING actor"]
    );
    assert_eq!(fixture.apply("left.yaml", &task("left", &[])).await.success(), "task/left created");
    assert_eq!(waits(&fixture, "left").await, ["AGENT_MISSING actor"]);
    let explained = fixture.rota(&["explain", "left"]).await.success();
    assert!(explained.contains("actor"), "{explained}");
    assert_eq!(fixture.apply("agent.yaml", AGENT).await.success(), "agent/actor created");
    let _worker = fixture.worker("actor", "one", 2).await?;
    fixture.rota(&["wait", "last", "left", "right"]).await.success();
    for name in ["last", "left", "right"] {
        assert_eq!(read(&fixture, name).await["status"]["result"]["text"], format!("from {name}"));
    }
    // Applying the same manifests again changes nothing.
    let again =
        fixture.rota(&["apply", "-f", "last.yaml", "-f", "left.yaml", "-f", "agent.yaml"]).await.success();
    assert!(again.lines().all(|line| line.contains(" unchanged")), "{again}");
    assert_eq!(again.lines().next(), Some("agent/actor unchanged"));
    history::check(&fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn cycles_fail_with_their_path() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    fixture.apply("open.yaml", &(task("a", &["b"]) + &task("b", &["c"]))).await.success();
    assert_eq!(waits(&fixture, "b").await, ["DEPENDENCY_MISSING c"]);
    let watched = fixture.command(&["wait", "a", "b"]);
    let watched = crate::process::Process::start("wait", watched);
    fixture.apply("closed.yaml", &task("c", &["a"])).await.success();
    assert_eq!(watched.ended().await.status.code(), Some(1));
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(read(&fixture, name).await["uid"].as_str().unwrap().to_owned());
    }
    for name in ["a", "b", "c"] {
        let task = read(&fixture, name).await;
        assert_eq!(task["status"]["state"], "TASK_STATE_FAILED");
        let message = task["status"]["failure"]["message"].as_str().unwrap();
        match name {
            // The task that closed the cycle names it; the others name what they waited for.
            "c" => assert!(ids.iter().all(|id| message.contains(id.as_str())), "{message}"),
            _ => assert!(message.starts_with("dependency ") && message.ends_with(" is FAILED"), "{message}"),
        }
        let described = fixture.rota(&["describe", name]).await.success();
        assert!(described.contains("dependency"), "{described}");
    }
    // Other tasks run.
    fixture.apply("other.yaml", &task("other", &[])).await.success();
    let _worker = fixture.worker("actor", "one", 1).await?;
    fixture.rota(&["wait", "other"]).await.success();
    tasks::until_state(
        &fixture.client()?,
        "namespaces/default/tasks/other",
        rota_proto::v1::TaskState::Succeeded,
    )
    .await?;
    history::check(&fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn workflows_and_templates_apply() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let template = "---\napiVersion: rota.dev/v1alpha1\nkind: WorkflowTemplate\nmetadata: {name: greet}\nspec:
  parameters: [{name: who, schema: {type: string}}]
  workflow:
    steps:
      - {name: hello, task: {target: {agent: actor}, runtime: {scripted: {steps: [{succeed: 'hello ${{ inputs.who }}'}]}}}}
      # Does not start while the workflow is paused.
      - {name: pass, needs: [{step: hello}], wait: {duration: 0s}}
    outputs: {text: '${{ steps.hello.result.text }}'}
";
    let workflow = |who: &str, state: &str| {
        format!(
            "---\napiVersion: rota.dev/v1alpha1\nkind: Workflow\nmetadata: {{name: greeting, labels: {{a: b}}}}\n\
             spec: {{template: greet, parameters: {{who: {who}}}, desiredState: {state}}}\n"
        )
    };
    // In any order: templates are applied before the workflows that name them.
    let first = fixture
        .apply("all.yaml", &(workflow("you", "Suspended") + template + "---\n" + AGENT))
        .await
        .success();
    assert_eq!(first, "agent/actor created\nworkflowtemplate/greet created\nworkflow/greeting created");
    let get = async || fixture.rota(&["workflow", "get", "greeting", "-o", "json"]).await.json();
    assert_eq!(get().await["status"]["state"], "WORKFLOW_STATE_PAUSED");
    let again = fixture.apply("all.yaml", &(workflow("you", "Suspended") + template)).await.success();
    assert_eq!(again, "workflowtemplate/greet unchanged\nworkflow/greeting unchanged");
    let other = fixture.apply("other.yaml", &workflow("me", "Run")).await;
    other.failed(1, &["spec.parameters.who cannot change", "generateName"]);
    let _worker = fixture.worker("actor", "one", 2).await?;
    let resumed = fixture.apply("resume.yaml", &workflow("you", "Run")).await.success();
    assert!(resumed.starts_with("workflow/greeting configured"), "{resumed}");
    fixture.rota(&["workflow", "watch", "greeting"]).await.success();
    let ended = get().await;
    assert_eq!(ended["status"]["outputs"]["text"], "hello you", "{ended}");
    assert_eq!(ended["labels"]["a"], "b");

    let wrong = "apiVersion: rota.dev/v1alpha1\nkind: Workflow\nmetadata: {name: wrong}\nspec: {steps: [{name: a, tusk: {}}]}\n";
    fixture.apply("wrong.yaml", wrong).await.failed(1, &["spec.steps[0].tusk"]);
    history::check(&fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn apply_waits_for_tasks_and_workflows() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("actor", "one", 2).await?;
    let workflow = |name: &str, step: &str| {
        format!(
            "---\napiVersion: rota.dev/v1alpha1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec: {{steps: [{{name: only, \
             task: {{target: {{agent: actor}}, retry: {{maxAttempts: 1}}, runtime: {{scripted: {{steps: [{step}]}}}}}}}}]}}\n"
        )
    };
    let good = task("plain", &[]) + &workflow("good", "{succeed: done}");
    std::fs::write(fixture.dir().join("good.yaml"), good)?;
    let applied = fixture.rota(&["apply", "-f", "good.yaml", "--wait"]).await.success();
    let row = |all: &str, name: &str, state: &str| {
        all.lines().any(|line| line.split_whitespace().take(2).eq([name, state]))
    };
    assert!(row(&applied, "plain", "Succeeded") && row(&applied, "good", "SUCCEEDED"), "{applied}");
    // Those that have ended are waited for, too.
    let bad = task("plain", &[])
        + &workflow("good", "{succeed: done}")
        + &workflow("bad", "{fail: {message: broken}}");
    std::fs::write(fixture.dir().join("bad.yaml"), bad)?;
    let failed = fixture.rota(&["apply", "-f", "bad.yaml", "--wait"]).await;
    assert!(failed.code == 1 && row(&failed.out, "bad", "FAILED"), "{failed:?}");
    assert!(failed.err.contains("workflow/bad FAILED"), "{failed:?}");
    let lines = fixture.rota(&["apply", "-f", "bad.yaml", "--wait", "-o", "jsonl"]).await;
    let last: Value = serde_json::from_str(lines.out.lines().last().unwrap_or_default())?;
    assert_eq!(last["status"]["state"], "WORKFLOW_STATE_FAILED", "{lines:?}");
    history::check(&fixture.client()?, true).await?.check()
}
