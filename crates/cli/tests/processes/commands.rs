//! Commands as one types them, and what they response.

use anyhow::Result;
use rota_testkit::history;
use serde_json::Value;

use crate::responses::Response;
use crate::{Fixture, Graces};

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

async fn state(fixture: &Fixture, name: &str) -> String {
    let task = fixture.rota(&["get", "task", name, "-o", "json"]).await.json();
    task["status"]["state"].as_str().unwrap().trim_start_matches("TASK_STATE_").to_owned()
}

#[tokio::test]
async fn finished_tasks_are_shown() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", ACTOR).await.success();
    let _worker = fixture.worker("actor", "one", 2).await?;
    let hello =
        task("hello", "", "{message: Hello}, {progress: 0.5}, {output: printed}, {succeed: all is well}");
    assert_eq!(fixture.apply("hello.yaml", &hello).await.success(), "task/hello created");
    let waited = fixture.rota(&["wait", "hello", "--timeout", "1m"]).await.success();
    assert!(waited.contains("Succeeded") && waited.contains("all is well"), "{waited}");

    // A name alone is a task's.
    for args in [&["describe", "hello"][..], &["describe", "task", "hello"], &["describe", "task/hello"]] {
        let page = fixture.rota(args).await.success();
        assert!(
            page.contains("State:         Succeeded") && page.contains("Result:        all is well"),
            "{page}"
        );
    }
    for args in
        [&["describe", "agent", "actor"][..], &["describe", "agent/actor"], &["describe", "worker/one"]]
    {
        assert!(fixture.rota(args).await.success().contains("actor"), "{args:?}");
    }
    fixture
        .rota(&["describe", "worker"])
        .await
        .failed(2, &["error: the name of the worker is missing", "hint: "]);
    fixture.rota(&["describe", "thing", "hello"]).await.failed(2, &["error: ", "thing"]);
    for args in [&["get", "task", "hello"][..], &["get", "tasks"], &["get", "tasks", "--state", "succeeded"]]
    {
        let table = fixture.rota(args).await.success();
        assert!(table.lines().any(|row| row.starts_with("hello") && row.contains("Succeeded")), "{table}");
    }
    let result = fixture.rota(&["result", "hello"]).await;
    assert_eq!((result.code, result.out.as_str(), result.err.as_str()), (0, "all is well\n", ""));
    let result = fixture.rota(&["result", "hello", "-o", "json"]).await.json();
    assert_eq!(result["text"], "all is well");
    let logs = fixture.rota(&["logs", "hello"]).await.success();
    let at = |what: &str| logs.find(what).unwrap_or_else(|| panic!("{what:?} is not in {logs}"));
    assert!(at("Hello") < at("50%") && at("50%") < at("printed") && at("printed") < at("Succeeded"));
    for (args, word) in [
        (&["agents"][..], "actor"),
        (&["workers"], "one"),
        (&["get", "workers", "--agent", "actor"], "one"),
        (&["capabilities"], "acting"),
        (&["version"], "rota "),
    ] {
        assert!(fixture.rota(args).await.success().contains(word), "{args:?}");
    }
    let explained = fixture.rota(&["explain", "hello"]).await.success();
    assert!(explained.to_lowercase().contains("succeeded"), "{explained}");

    // A retry is another task.
    let retried = fixture.rota(&["retry", "hello", "--wait"]).await;
    assert_eq!((retried.code, retried.out.as_str()), (0, "all is well\n"));
    // By id, since the name resolves to the newest task of that name.
    let first = fixture.rota(&["get", "task", "hello", "-o", "json"]).await.json();
    let again = ["retry", first["uid"].as_str().unwrap(), "--idempotency-key", "again"];
    let id = fixture.rota(&again).await.success();
    assert_eq!(fixture.rota(&again).await.success(), id);
    fixture.rota(&["wait", &id]).await.success();
    let newest = fixture.rota(&["get", "task", &id, "-o", "json"]).await.json();
    assert!(!newest["retryOf"].as_str().unwrap().is_empty());
    history::check(&fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn pending_tasks_can_be_changed() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", ACTOR).await.success();
    fixture.apply("waits.yaml", &task("waits", "", "{succeed: at last}")).await.success();
    let explained = fixture.rota(&["explain", "waits", "-o", "json"]).await.json();
    assert_eq!(explained["causes"][0]["code"], "no_worker", "{explained}");
    fixture
        .rota(&["result", "waits"])
        .await
        .failed(1, &["error: ", "no result yet", "hint: ", "rota wait waits"]);
    let late = fixture.rota(&["wait", "waits", "--timeout", "10ms"]).await;
    late.failed(6, &["error: timed out after 10ms waiting for waits", "hint: ", "rota explain waits"]);

    let updated = fixture
        .rota(&["update", "waits", "--priority", "urgent", "--label", "a=b", "--label", "team-"])
        .await;
    assert_eq!(updated.success(), "task/waits updated");
    let now = fixture.rota(&["get", "task", "waits", "-o", "json"]).await.json();
    assert_eq!((&now["priority"], &now["labels"]), (&Value::from(10), &serde_json::json!({"a": "b"})));
    let found = fixture.rota(&["get", "tasks", "--label", "a=b", "-o", "json"]).await.json();
    assert_eq!(found["tasks"].as_array().unwrap().len(), 1);
    fixture.rota(&["update", "waits", "--suspend"]).await.success();
    assert_eq!(state(&fixture, "waits").await, "PENDING");
    assert!(fixture.rota(&["explain", "waits"]).await.success().contains("suspended"));
    fixture.rota(&["update", "waits", "--resume"]).await.success();
    assert_eq!(state(&fixture, "waits").await, "QUEUED");
    fixture.rota(&["update", "waits"]).await.failed(2, &["error: nothing to change", "hint: "]);
    fixture.rota(&["update", "waits", "--priority", "11"]).await.failed(2, &["error: "]);

    // Manifests change it too; immutable fields are rejected by name.
    let low = task("waits", "  priority: LOW\n", "{succeed: at last}");
    assert_eq!(fixture.apply("waits.yaml", &low).await.success(), "task/waits configured");
    let other = task("waits", "  priority: LOW\n", "{succeed: something else}");
    fixture
        .apply("waits.yaml", &other)
        .await
        .failed(1, &["error: failed to apply task/waits", "cause: ", "runtime"]);
    let run = ["run", "--detach", "--agent", "actor", "--idempotency-key", "k"];
    let once = fixture.rota(&[&run[..], &["one thing"]].concat()).await.success();
    assert_eq!(fixture.rota(&[&run[..], &["one thing"]].concat()).await.success(), once);
    fixture.rota(&[&run[..], &["another thing"]].concat()).await.failed(1, &["error: ", "cause: ", "prompt"]);

    assert_eq!(
        fixture.rota(&["cancel", "waits", &once]).await.success().lines().next(),
        Some("task/waits cancelled")
    );
    fixture.rota(&["wait", "waits", &once]).await.failed(3, &[]);
    fixture.rota(&["result", "waits"]).await.failed(3, &["error: task waits was cancelled"]);
    let again = fixture.apply("waits.yaml", &low).await.success();
    assert!(again.contains("unchanged (cancelled; `rota retry waits` runs it again)"), "{again}");
    history::check(&fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn agents_are_asked_drained_and_deleted() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", ACTOR).await.success();
    let worker = fixture.worker("actor", "one", 2).await?;
    fixture.apply("asks.yaml", &task("asks", "", "{ask: 'May I?'}, {succeed: I did}")).await.success();
    fixture.rota(&["wait", "asks", "--for", "running"]).await.success();
    let attached = Response::of(fixture.command(&["attach", "asks"]), "yes, do\n").await;
    assert!(attached.out.contains("? May I?") && attached.out.contains("› yes, do"), "{attached:?}");
    assert_eq!(attached.code, 0);
    // Without standard input the task is only followed.
    fixture.apply("again.yaml", &task("again", "", "{ask: 'And now?'}, {succeed: I did}")).await.success();
    fixture.rota(&["wait", "again", "--for", "running"]).await.success();
    let mut silent = crate::process::Process::start("attach", fixture.command(&["attach", "again"]));
    silent.prints("standard input has ended, questions cannot be answered from here").await;
    silent.prints("hint: answer in a terminal with `rota attach ").await;
    silent.prints("? And now?").await;
    Response::of(fixture.command(&["attach", "again"]), "yes, do\n").await.success();
    let silent = silent.ended().await;
    assert_eq!((silent.status.code(), silent.output.matches("has ended").count()), (Some(0), 1));

    let fails =
        task("fails", "  retry: {maxAttempts: 2, initialBackoff: 10ms}\n", "{fail: {message: not today}}");
    fixture.apply("fails.yaml", &fails).await.success();
    fixture.rota(&["wait", "fails"]).await.failed(1, &[]);
    let described = fixture.rota(&["describe", "fails"]).await.success();
    assert!(
        described.contains("Failure:       agent: not today") && described.contains("Attempt:       2"),
        "{described}"
    );
    fixture.rota(&["retry", "fails", "--wait"]).await.failed(1, &["error: task fails failed: not today"]);
    fixture.rota(&["wait", "fails", "asks", "--for", "succeeded"]).await.failed(1, &[]);
    fixture.rota(&["result", "fails"]).await.failed(1, &["error: task fails failed: not today"]);

    // A misspelled name is an error.
    for format in ["table", "json"] {
        let typo = fixture.rota(&["drain", "actor", "--worker", "oen", "-o", format]).await;
        typo.failed(4, &["error: agent actor has no worker \"oen\"", "hint: workers of agent actor: one"]);
        fixture.rota(&["drain", "actr", "-o", format]).await.failed(4, &["error: agent actr does not exist"]);
    }
    assert_eq!(fixture.rota(&["drain", "actor", "--worker", "one"]).await.success(), "worker/one draining");
    assert_eq!(worker.ended().await.status.code(), Some(0));
    assert_eq!(fixture.rota(&["delete", "agent", "actor"]).await.success(), "agent/actor deleted");
    fixture.rota(&["delete", "agent", "actor"]).await.failed(4, &["error: "]);
    fixture.rota(&["delete", "agent", "actor", "--ignore-not-found"]).await.success();
    history::check(&fixture.client()?, true).await?.check()
}
