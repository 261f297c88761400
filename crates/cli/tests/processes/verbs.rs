//! Commands as one types them, and what they answer.

use anyhow::Result;
use rota_testkit::history;
use serde_json::Value;

use crate::answers::Answer;
use crate::{Graces, Stage};

const ACTOR: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {management: External, capabilities: [acting], runtime: {scripted: {}}}
";

fn task(name: &str, more: &str, steps: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}, labels: {{team: web}}}}\n\
         spec:\n  agent: actor\n  runtime: {{scripted: {{steps: [{steps}]}}}}\n{more}"
    )
}

async fn state(stage: &Stage, name: &str) -> String {
    let task = stage.rota(&["get", "task", name, "-o", "json"]).await.json();
    task["status"]["state"].as_str().unwrap().trim_start_matches("TASK_STATE_").to_owned()
}

#[tokio::test]
async fn a_run_is_waited_for_and_shown() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    stage.apply("agent.yaml", ACTOR).await.done();
    let _worker = stage.worker("actor", "one", 2).await?;
    let hello = task("hello", "", "{say: Hello}, {progress: 0.5}, {output: printed}, {succeed: all is well}");
    assert_eq!(stage.apply("hello.yaml", &hello).await.done(), "task/hello created");
    let waited = stage.rota(&["wait", "hello", "--timeout", "1m"]).await.done();
    assert!(waited.contains("Succeeded") && waited.contains("all is well"), "{waited}");

    // A name alone is a task's.
    for args in [&["describe", "hello"][..], &["describe", "task", "hello"], &["describe", "task/hello"]] {
        let page = stage.rota(args).await.done();
        assert!(
            page.contains("State:         Succeeded") && page.contains("Result:        all is well"),
            "{page}"
        );
    }
    for args in
        [&["describe", "agent", "actor"][..], &["describe", "agent/actor"], &["describe", "worker/one"]]
    {
        assert!(stage.rota(args).await.done().contains("actor"), "{args:?}");
    }
    stage.rota(&["describe", "worker"]).await.failed(2, &["error: which worker?", "hint: "]);
    stage.rota(&["describe", "thing", "hello"]).await.failed(2, &["error: ", "thing"]);
    for args in [&["get", "task", "hello"][..], &["get", "tasks"], &["get", "tasks", "--state", "succeeded"]]
    {
        let table = stage.rota(args).await.done();
        assert!(table.lines().any(|row| row.starts_with("hello") && row.contains("Succeeded")), "{table}");
    }
    let result = stage.rota(&["result", "hello"]).await;
    assert_eq!((result.code, result.out.as_str(), result.err.as_str()), (0, "all is well\n", ""));
    let result = stage.rota(&["result", "hello", "-o", "json"]).await.json();
    assert_eq!(result["text"], "all is well");
    let logs = stage.rota(&["logs", "hello"]).await.done();
    let at = |what: &str| logs.find(what).unwrap_or_else(|| panic!("{what:?} is not in {logs}"));
    assert!(at("Hello") < at("50%") && at("50%") < at("printed") && at("printed") < at("Succeeded"));
    for (args, word) in [
        (&["agents"][..], "actor"),
        (&["workers"], "one"),
        (&["get", "workers", "--agent", "actor"], "one"),
        (&["capabilities"], "acting"),
        (&["version"], "rota "),
    ] {
        assert!(stage.rota(args).await.done().contains(word), "{args:?}");
    }
    let explained = stage.rota(&["explain", "hello"]).await.done();
    assert!(explained.to_lowercase().contains("succeeded"), "{explained}");

    // Once more, as another task.
    let retried = stage.rota(&["retry", "hello", "--wait"]).await;
    assert_eq!((retried.code, retried.out.as_str()), (0, "all is well\n"));
    // By its id: the name leads to the newest of that name, which is the next try as soon as there is one.
    let first = stage.rota(&["get", "task", "hello", "-o", "json"]).await.json();
    let again = ["retry", first["uid"].as_str().unwrap(), "--idempotency-key", "again"];
    let id = stage.rota(&again).await.done();
    assert_eq!(stage.rota(&again).await.done(), id);
    stage.rota(&["wait", &id]).await.done();
    let newest = stage.rota(&["get", "task", &id, "-o", "json"]).await.json();
    assert!(!newest["retryOf"].as_str().unwrap().is_empty());
    history::check(&stage.client()?, true).await?.check()
}

#[tokio::test]
async fn a_waiting_task_is_changed_explained_and_cancelled() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    stage.apply("agent.yaml", ACTOR).await.done();
    stage.apply("waits.yaml", &task("waits", "", "{succeed: at last}")).await.done();
    let explained = stage.rota(&["explain", "waits", "-o", "json"]).await.json();
    assert_eq!(explained["causes"][0]["code"], "no_worker", "{explained}");
    stage
        .rota(&["result", "waits"])
        .await
        .failed(1, &["error: ", "no result yet", "hint: ", "rota wait waits"]);
    let late = stage.rota(&["wait", "waits", "--timeout", "10ms"]).await;
    late.failed(6, &["error: after 10ms still waiting for waits", "hint: ", "rota explain waits"]);

    let updated =
        stage.rota(&["update", "waits", "--priority", "urgent", "--label", "a=b", "--label", "team-"]).await;
    assert_eq!(updated.done(), "task/waits updated");
    let now = stage.rota(&["get", "task", "waits", "-o", "json"]).await.json();
    assert_eq!((&now["priority"], &now["labels"]), (&Value::from(10), &serde_json::json!({"a": "b"})));
    let found = stage.rota(&["get", "tasks", "--label", "a=b", "-o", "json"]).await.json();
    assert_eq!(found["tasks"].as_array().unwrap().len(), 1);
    stage.rota(&["update", "waits", "--suspend"]).await.done();
    assert_eq!(state(&stage, "waits").await, "PENDING");
    assert!(stage.rota(&["explain", "waits"]).await.done().contains("suspended"));
    stage.rota(&["update", "waits", "--resume"]).await.done();
    assert_eq!(state(&stage, "waits").await, "QUEUED");
    stage.rota(&["update", "waits"]).await.failed(2, &["error: there is nothing to change", "hint: "]);
    stage.rota(&["update", "waits", "--priority", "11"]).await.failed(2, &["error: "]);

    // By its manifest, too; what cannot be changed is refused by name.
    let low = task("waits", "  priority: LOW\n", "{succeed: at last}");
    assert_eq!(stage.apply("waits.yaml", &low).await.done(), "task/waits configured");
    let other = task("waits", "  priority: LOW\n", "{succeed: something else}");
    stage
        .apply("waits.yaml", &other)
        .await
        .failed(1, &["error: task/waits could not be applied", "cause: ", "runtime"]);
    let run = ["run", "--detach", "--agent", "actor", "--idempotency-key", "k"];
    let once = stage.rota(&[&run[..], &["one thing"]].concat()).await.done();
    assert_eq!(stage.rota(&[&run[..], &["one thing"]].concat()).await.done(), once);
    stage.rota(&[&run[..], &["another thing"]].concat()).await.failed(1, &["error: ", "cause: ", "prompt"]);

    assert_eq!(
        stage.rota(&["cancel", "waits", &once]).await.done().lines().next(),
        Some("task/waits cancelled")
    );
    stage.rota(&["wait", "waits", &once]).await.failed(3, &[]);
    stage.rota(&["result", "waits"]).await.failed(3, &["error: task waits was cancelled"]);
    let again = stage.apply("waits.yaml", &low).await.done();
    assert!(again.contains("unchanged (cancelled; `rota retry waits` runs it once more)"), "{again}");
    history::check(&stage.client()?, true).await?.check()
}

#[tokio::test]
async fn an_agent_is_asked_answered_drained_and_deleted() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    stage.apply("agent.yaml", ACTOR).await.done();
    let worker = stage.worker("actor", "one", 2).await?;
    stage.apply("asks.yaml", &task("asks", "", "{ask: 'Shall I?'}, {succeed: I did}")).await.done();
    stage.rota(&["wait", "asks", "--for", "running"]).await.done();
    let attached = Answer::of(stage.command(&["attach", "asks"]), "yes, do\n").await;
    assert!(attached.out.contains("? Shall I?") && attached.out.contains("› yes, do"), "{attached:?}");
    assert_eq!(attached.code, 0);
    // One that cannot answer says so, and still sees how it goes on.
    stage.apply("again.yaml", &task("again", "", "{ask: 'And now?'}, {succeed: I did}")).await.done();
    stage.rota(&["wait", "again", "--for", "running"]).await.done();
    let mut silent = crate::process::Process::start("attach", stage.command(&["attach", "again"]));
    silent.says("standard input has ended: no answers can be given from here").await;
    silent.says("hint: answer in a terminal with `rota attach ").await;
    silent.says("? And now?").await;
    Answer::of(stage.command(&["attach", "again"]), "yes, do\n").await.done();
    let silent = silent.ended().await;
    assert_eq!((silent.status.code(), silent.said.matches("has ended").count()), (Some(0), 1));

    let fails =
        task("fails", "  retry: {maxAttempts: 2, initialBackoff: 10ms}\n", "{fail: {message: not today}}");
    stage.apply("fails.yaml", &fails).await.done();
    stage.rota(&["wait", "fails"]).await.failed(1, &[]);
    let described = stage.rota(&["describe", "fails"]).await.done();
    assert!(
        described.contains("Failure:       agent: not today") && described.contains("Attempt:       2"),
        "{described}"
    );
    stage.rota(&["retry", "fails", "--wait"]).await.failed(1, &["error: task fails failed: not today"]);
    stage.rota(&["wait", "fails", "asks", "--for", "succeeded"]).await.failed(1, &[]);
    stage.rota(&["result", "fails"]).await.failed(1, &["error: task fails failed: not today"]);

    // A name that is wrong is no worker that is busy.
    for format in ["table", "json"] {
        let typo = stage.rota(&["drain", "actor", "--worker", "oen", "-o", format]).await;
        typo.failed(4, &["error: the agent actor has no worker \"oen\"", "hint: it has one"]);
        stage.rota(&["drain", "actr", "-o", format]).await.failed(4, &["error: there is no agent actr"]);
    }
    assert_eq!(stage.rota(&["drain", "actor", "--worker", "one"]).await.done(), "worker/one draining");
    assert_eq!(worker.ended().await.status.code(), Some(0));
    assert_eq!(stage.rota(&["delete", "agent", "actor"]).await.done(), "agent/actor deleted");
    stage.rota(&["delete", "agent", "actor"]).await.failed(4, &["error: "]);
    stage.rota(&["delete", "agent", "actor", "--ignore-not-found"]).await.done();
    history::check(&stage.client()?, true).await?.check()
}
