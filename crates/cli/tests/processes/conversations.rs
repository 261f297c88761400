//! Tasks that continue others, with scripts in place of a model.

use anyhow::Result;
use rota_proto::v1::{Event, TaskState, event};
use rota_testkit::tasks;

use crate::{Fixture, Graces};

const AGENTS: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {management: External, runtime: {scripted: {}}}
---
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {management: External, runtime: {command: {}}, overrides: All}
";

fn task(name: &str, more: &str, steps: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\n\
         spec:\n  agent: actor\n  runtime: {{scripted: {{steps: [{steps}]}}}}\n{more}"
    )
}

/// Returns what the agent of a task has written.
async fn messages(fixture: &Fixture, task: &str) -> Result<Vec<String>> {
    let log = tasks::log(&fixture.client()?, &format!("namespaces/default/tasks/{task}")).await?;
    let message = |event: Event| match event.kind {
        Some(event::Kind::Message(message)) => Some(message.text),
        _ => None,
    };
    Ok(log.into_iter().filter_map(message).collect())
}

#[tokio::test]
async fn scripts_continue_what_they_remember() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agents.yaml", AGENTS).await.success();
    let _worker = fixture.worker("actor", "one", 2).await?;
    let ended = async |name: &str, manifest: &str| {
        fixture.apply(&format!("{name}.yaml"), manifest).await.success();
        fixture.rota(&["wait", name, "--timeout", "1m"]).await
    };
    let first = task("first", "", "{remember: one}, {usage: {outputTokens: 5}}, {succeed: ok}");
    ended("first", &first).await.success();
    // Over retries, and after an unsuccessful end.
    let second = "{recall: true}, {remember: two}, {fail: {class: Crash, attempts: 1}}, {recall: true}, {writeFile: {path: d/f, text: x}}, {fail: {}}";
    ended("second", &task("second", "  continueFrom: first\n  retry: {maxAttempts: 2}\n", second))
        .await
        .failed(1, &[]);
    assert_eq!(messages(&fixture, "second").await?, ["one\n", "one\ntwo\n", "one\ntwo\ntwo\n"]);
    // The first one is not needed any more.
    ended("third", &task("third", "  continueFrom: second\n", "{recall: true}")).await.success();
    assert_eq!(messages(&fixture, "third").await?, ["one\ntwo\ntwo\n"]);
    for (name, more, code, words) in [
        ("none", "  continueFrom: other\n", 4, &["other", "does not exist"][..]),
        ("nothing", "  continueFrom: plain\n", 1, &["no checkpoint"]),
        ("kind", "  continueFrom: first\n", 1, &["runtime scripted", "command"]),
    ] {
        let mut manifest = task(name, more, "{succeed: ok}");
        if name == "nothing" {
            ended("plain", &task("plain", "", "{succeed: ok}")).await.success();
        }
        if name == "kind" {
            manifest = format!(
                "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: kind}}\nspec:\n  agent: shell\n{more}"
            );
        }
        fixture.apply("bad.yaml", &manifest).await.failed(code, words);
    }
    Ok(())
}

#[tokio::test]
async fn tasks_of_a_thread_continue_each_other() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agents.yaml", AGENTS).await.success();
    let _workers = [fixture.worker("actor", "one", 2).await?, fixture.worker("actor", "two", 2).await?];
    let thread = "  thread: talk\n";
    let hold = "{remember: one}, {ask: May it end?}, {usage: {outputTokens: 5, costUsd: '0.01'}}";
    for (name, steps) in [
        ("first", hold),
        ("second", "{recall: true}, {fail: {class: Invalid}}"),
        ("third", "{recall: true}, {remember: three}"),
    ] {
        fixture.apply(&format!("{name}.yaml"), &task(name, thread, steps)).await.success();
    }
    let client = fixture.client()?;
    let first =
        tasks::until_state(&client, "namespaces/default/tasks/first", TaskState::InputRequired).await?;
    let explained = fixture.rota(&["explain", "second"]).await.success();
    assert!(explained.contains(&format!("waits for task {} of thread talk", first.uid)), "{explained}");
    let listed = fixture.rota(&["threads"]).await.success();
    let row = listed.lines().find(|row| row.starts_with("talk")).unwrap();
    assert!(row.contains(" 3 ") && row.contains("Pending"), "{listed}");
    tasks::answer(&client, &first.name, "yes").await?;
    fixture.rota(&["wait", "third", "--timeout", "1m"]).await.success();
    assert_eq!(messages(&fixture, "second").await?, ["one\n"]);
    assert_eq!(messages(&fixture, "third").await?, ["one\n"]);
    fixture.apply("fourth.yaml", &task("fourth", thread, "{recall: true}")).await.success();
    fixture.rota(&["wait", "fourth", "--timeout", "1m"]).await.success();
    assert_eq!(messages(&fixture, "fourth").await?, ["one\nthree\n"]);
    let listed = fixture.rota(&["threads", "-o", "json"]).await.json();
    let talk = &listed["threads"][0];
    assert_eq!(
        (talk["tasks"].as_str(), talk["lastState"].as_str()),
        (Some("4"), Some("TASK_STATE_SUCCEEDED"))
    );
    assert_eq!(talk["usage"]["costMicroUsd"], "10000");
    let table = fixture.rota(&["get", "tasks", "--thread", "talk"]).await.success();
    assert_eq!(table.lines().count(), 5, "{table}");
    let other = "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {name: other}\nspec: {agent: shell, thread: talk}\n";
    fixture.apply("other.yaml", other).await.failed(1, &["spec.thread", "runtime scripted"]);
    Ok(())
}
