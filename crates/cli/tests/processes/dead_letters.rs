//! Dead letters: listed by class, replayed one by one and by filter, over an interruption, with an edited specification.

use anyhow::{Context, Result};
use rota_proto::labels;
use rota_testkit::tasks::eventually;
use serde_json::Value;

use crate::responses::Response;
use crate::{Fixture, Graces};

const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, slots: 4, management: External}
";

/// Runs a shell command as a task that is attempted once.
async fn run(fixture: &Fixture, name: &str, script: &str) -> Response {
    let args = ["run", "--agent", "shell", "--max-attempts", "1", "--name", name, "--owner", "ada"];
    let command = ["--quiet", "--command", "--", "sh", "-c", script];
    fixture.rota(&[&args[..], &command].concat()).await
}

async fn letters(fixture: &Fixture, more: &[&str]) -> Result<Vec<Value>> {
    let args = [&["dead-letters", "list", "-o", "json"][..], more].concat();
    let listed = fixture.rota(&args).await.json();
    Ok(listed["tasks"].as_array().context("tasks")?.clone())
}

fn names(letters: &[Value]) -> Vec<&str> {
    letters.iter().filter_map(|letter| letter["alias"].as_str()).collect()
}

async fn tasks(fixture: &Fixture, alias: &str) -> Result<usize> {
    let tasks = fixture.rota(&["get", "tasks", "-o", "json"]).await.json();
    Ok(tasks["tasks"].as_array().context("tasks")?.iter().filter(|task| task["alias"] == alias).count())
}

#[tokio::test]
async fn dead_letters_are_replayed_once() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    let flag = fixture.dir().join("fixed");
    let script = format!("test -e '{}'", flag.display());
    assert!(letters(&fixture, &[]).await?.is_empty());
    for name in ["first", "second", "third"] {
        assert_eq!(run(&fixture, name, &script).await.code, 1);
    }
    assert_eq!(run(&fixture, "fine", "true").await.code, 0);
    let all = letters(&fixture, &[]).await?;
    assert_eq!(names(&all), ["third", "second", "first"]);
    assert_eq!(names(&letters(&fixture, &["--limit", "1"]).await?), ["third"]);
    assert_eq!(letters(&fixture, &["--class", "agent", "--owner", "ada", "--since", "1d"]).await?.len(), 3);
    assert!(letters(&fixture, &["--class", "overload,worker_lost"]).await?.is_empty());
    assert!(letters(&fixture, &["--owner", "bob"]).await?.is_empty());
    let table = fixture.rota(&["dead-letters", "list"]).await.success();
    assert!(table.contains("CLASS") && table.contains("first") && table.contains("agent"), "{table}");
    fixture.rota(&["dead-letters", "list", "--class", "bad"]).await.failed(2, &["class of failures"]);

    fixture.rota(&["dead-letters", "replay"]).await.failed(2, &["no filter", "--all"]);
    fixture.rota(&["dead-letters", "replay", "fine"]).await.failed(2, &["has not failed"]);
    fixture.rota(&["dead-letters", "replay", "first", "--all"]).await.failed(2, &["cannot be used with"]);
    let dry = fixture.rota(&["dead-letters", "replay", "--all", "--dry-run"]).await.success();
    assert!(dry.contains("third") && tasks(&fixture, "third").await? == 1, "{dry}");

    // As if the command had ended between the copy and its mark.
    let uid = all[2]["uid"].as_str().context("an id")?.to_owned();
    std::fs::write(&flag, "")?;
    let key = format!("replay:{uid}");
    let copy = fixture.rota(&["retry", &uid, "--idempotency-key", &key]).await.success();
    let replay = ["dead-letters", "replay", "--owner", "ada", "--limit", "2"];
    let replayed = fixture.rota(&replay).await;
    assert!(replayed.err.contains("only the oldest 2"), "{replayed:?}");
    let replayed = replayed.success();
    assert!(replayed.starts_with(&format!("task/{uid} replayed: task/{copy}")), "{replayed}");
    assert_eq!(names(&letters(&fixture, &[]).await?), ["third"]);
    fixture.rota(&replay).await.success();
    for name in ["first", "second", "third"] {
        fixture.rota(&["wait", name, "--timeout", "1m"]).await.success();
        assert_eq!(tasks(&fixture, name).await?, 2, "{name}");
    }
    let marked = letters(&fixture, &["--replayed"]).await?;
    assert_eq!(names(&marked), ["third", "second", "first"]);
    assert_eq!(marked[2]["labels"][labels::REPLAYED], copy);
    assert!(letters(&fixture, &[]).await?.is_empty());

    // Whichever command names it.
    fixture
        .rota(&["dead-letters", "replay", &uid])
        .await
        .failed(2, &["already replayed", &copy, "rota retry"]);
    fixture.rota(&["dead-letters", "replay", &uid, "--edit"]).await.failed(2, &["already replayed"]);

    // The mark is that of one task.
    let copied = fixture.rota(&["retry", &uid]).await.success();
    let copied = fixture.rota(&["get", "task", &copied, "-o", "json"]).await.json();
    assert!(copied["labels"][labels::REPLAYED].is_null(), "{copied}");

    // The copy of one that fails again is a dead letter of its own.
    assert_eq!(run(&fixture, "missing", "exec /no/such/program").await.code, 1);
    fixture.rota(&["dead-letters", "replay", "missing"]).await.success();
    assert_eq!(fixture.rota(&["wait", "missing", "--timeout", "1m"]).await.code, 1);
    let again = letters(&fixture, &[]).await?;
    assert_eq!(names(&again), ["missing"]);
    let mut edit = fixture.command(&["dead-letters", "replay", "missing", "--edit"]);
    edit.env("EDITOR", "sed -i 's#/no/such/program#/bin/true#'");
    Response::of(edit, "").await.success();
    fixture.rota(&["wait", "missing", "--timeout", "1m"]).await.success();
    let task = fixture.rota(&["get", "task", "missing", "-o", "json"]).await.json();
    assert_eq!(task["labels"][labels::REPLAY_OF], again[0]["uid"]);
    assert!(letters(&fixture, &[]).await?.is_empty());
    // There is one task for a letter, also if the command had ended before its mark.
    let letter = again[0]["uid"].as_str().context("an id")?;
    let key = format!("replay:{letter}");
    let made = task["uid"].as_str().context("an id")?;
    let refused = fixture.rota(&["retry", letter, "--idempotency-key", &key]).await;
    refused.failed(1, &[made, "exists under this key"]);
    Ok(())
}

/// Copies that fail again are newer than the letters that are left.
#[tokio::test]
async fn repeated_replays_take_each_letter_once() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    let all = ["first", "second", "third"];
    for name in all {
        assert_eq!(run(&fixture, name, "false").await.code, 1);
    }
    let replay = ["dead-letters", "replay", "--all", "--limit", "1"];
    for name in all {
        fixture.rota(&replay).await.success();
        assert_eq!(tasks(&fixture, name).await?, 2, "{name}");
        assert_eq!(fixture.rota(&["wait", name, "--timeout", "1m"]).await.code, 1);
    }
    // The copies are left out until they are asked for.
    let nothing = fixture.rota(&replay).await;
    assert!(nothing.err.contains("3 that have failed again are left out"), "{nothing:?}");
    nothing.success();
    assert_eq!(names(&letters(&fixture, &[]).await?), ["third", "second", "first"]);
    fixture.rota(&[&replay[..], &["--again"]].concat()).await.success();
    assert_eq!(tasks(&fixture, "first").await?, 3);
    Ok(())
}

/// A replay without a secret of its task would run with another environment.
#[tokio::test]
async fn edited_dead_letters_need_their_secrets() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    fixture.environment.push(("DEPLOY_KEY", "a deploy key".to_owned()));
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    let args = ["run", "--agent", "shell", "--max-attempts", "1", "--name", "deploy", "--quiet"];
    let command = ["--secret-env", "DEPLOY_KEY", "--command", "--", "sh", "-c", "test -z \"$DEPLOY_KEY\""];
    assert_eq!(fixture.rota(&[&args[..], &command].concat()).await.code, 1);
    let replay = ["dead-letters", "replay", "deploy", "--edit"];
    fixture.rota(&replay).await.failed(2, &["the secret DEPLOY_KEY", "--secret-env DEPLOY_KEY"]);
    let mut edit = fixture.command(&[&replay[..], &["--secret-env", "DEPLOY_KEY"]].concat());
    edit.env("EDITOR", "sed -i 's#test -z#test -n#'");
    Response::of(edit, "").await.success();
    fixture.rota(&["wait", "deploy", "--timeout", "1m"]).await.success();
    Ok(())
}

#[tokio::test]
async fn failing_task_is_listed_until_acknowledged() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    let attention = ["get", "tasks", "--attention"];
    assert!(fixture.rota(&attention).await.err.contains("no tasks"));
    // The fourth attempt is stopped at the end.
    let tries = fixture.dir().join("tries").display().to_string();
    let script = format!("echo >> '{tries}'; test $(wc -l < '{tries}') -gt 3 && sleep 600");
    let run = ["run", "--detach", "--agent", "shell", "--name", "unlucky", "--max-attempts", "9"];
    let command = ["--command", "--", "sh", "-c", &script];
    fixture.rota(&[&run[..], &command].concat()).await.success();
    eventually("three failures", async || Ok(fixture.rota(&attention).await.success().contains("unlucky")))
        .await?;
    let acknowledge = ["acknowledge", "unlucky", "--reason", "known"];
    assert!(fixture.rota(&acknowledge).await.success().contains("acknowledged"));
    assert!(fixture.rota(&attention).await.err.contains("no tasks"));
    fixture.rota(&["cancel", "unlucky"]).await.success();
    fixture.rota(&["wait", "unlucky"]).await;
    fixture.rota(&["acknowledge", "unlucky"]).await.failed(1, &["already ended"]);
    Ok(())
}

const BUILD: &str = "\
inputs: {word: bad}
steps:
  - name: first
    task: {target: {agent: shell}, runtime: {command: {shell: echo first}}}
  - name: second
    needs: [{step: first}]
    task: {target: {agent: shell}, runtime: {command: {shell: 'test ${{ inputs.word }} = good'}}, retry: {maxAttempts: 1}}
";

#[tokio::test]
async fn failed_workflows_are_replayed_from_the_failed_step() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    std::fs::write(fixture.dir().join("build.yaml"), BUILD)?;
    for name in ["one", "two", "three"] {
        let run = ["workflow", "run", "-f", "build.yaml", "--name", name, "--owner", "ada", "--watch"];
        assert_eq!(fixture.rota(&run).await.code, 1);
    }
    let workflows = async |more: &[&str]| -> Result<Vec<Value>> {
        let args = [&["dead-letters", "list", "-o", "json"][..], more].concat();
        let listed = fixture.rota(&args).await.json();
        assert!(
            listed["tasks"].as_array().is_some_and(Vec::is_empty),
            "tasks of steps are those of workflows"
        );
        Ok(listed["workflows"].as_array().context("workflows")?.clone())
    };
    let all = workflows(&[]).await?;
    assert_eq!(names(&all), ["three", "two", "one"]);
    assert_eq!(names(&workflows(&["--limit", "2", "--since", "1d"]).await?), ["three", "two"]);
    assert!(
        workflows(&["--owner", "bob"]).await?.is_empty()
            && workflows(&["--agent", "shell"]).await?.is_empty()
    );
    assert!(workflows(&["--template", "none"]).await?.is_empty());
    let table = fixture.rota(&["dead-letters", "list"]).await.success();
    assert!(table.contains("second: its task has failed") && table.contains("three"), "{table}");

    // One, with another input: only what has failed runs again.
    let ended = async |name: &str| fixture.rota(&["workflow", "watch", name]).await.code;
    fixture.rota(&["dead-letters", "replay", "workflow/one", "-p", "word=good"]).await.success();
    assert_eq!(ended("one").await, 0);
    let steps = fixture.rota(&["workflow", "get", "one"]).await.success();
    assert!(steps.contains("its results are those of the earlier run"), "{steps}");
    assert_eq!(names(&workflows(&[]).await?), ["three", "two"]);
    let uid = all[2]["uid"].as_str().context("an id")?;
    fixture.rota(&["dead-letters", "replay", uid]).await.failed(2, &["already run again", "rerun"]);
    fixture.rota(&["dead-letters", "replay", "one"]).await.failed(2, &["has not failed"]);
    assert_eq!(names(&workflows(&["--replayed"]).await?), ["three", "two", "one"]);

    // One whose inputs are edited, and one by a filter, which fails again.
    let mut edit = fixture.command(&["dead-letters", "replay", "two", "--edit"]);
    edit.env("EDITOR", "sed -i s/bad/good/");
    Response::of(edit, "").await.success();
    assert_eq!(ended("two").await, 0);
    let dry = fixture.rota(&["dead-letters", "replay", "--owner", "ada", "--dry-run"]).await.success();
    assert!(dry.contains("three") && !dry.contains("two"), "{dry}");
    let replayed = fixture.rota(&["dead-letters", "replay", "--owner", "ada"]).await.success();
    assert!(
        replayed.starts_with(&format!("workflow/{} replayed: ", all[0]["uid"].as_str().context("an id")?))
    );
    assert_eq!(ended("three").await, 1);
    let again = workflows(&[]).await?;
    assert!(names(&again) == ["three"] && again[0]["rerunOf"] == all[0]["uid"], "{again:?}");
    fixture.rota(&["dead-letters", "replay", "nothing"]).await.failed(4, &["nothing"]);
    Ok(())
}
