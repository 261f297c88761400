//! Standard output is data: in each format it can be read by a program, and whoever has had enough may go.

use std::process::Stdio;

use anyhow::Result;
use rota_testkit::history;
use rota_testkit::tasks::PATIENCE;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::answers::Answer;
use crate::{Graces, Stage};

async fn filled() -> Result<Stage> {
    let stage = Stage::start(Graces::LONG).await?;
    let text = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {management: External, capabilities: [acting], runtime: {scripted: {}}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: one}
spec: {agent: actor, runtime: {scripted: {steps: [{output: 'a: b'}, {succeed: '- x'}]}}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: two}
spec: {agent: actor, runtime: {scripted: {}}}
";
    stage.apply("all.yaml", text).await.done();
    Ok(stage)
}

#[tokio::test]
async fn every_format_can_be_read() -> Result<()> {
    let stage = filled().await?;
    let _worker = stage.worker("actor", "w", 1).await?;
    stage.rota(&["wait", "one", "two"]).await.done();
    for args in [
        &["get", "tasks"][..],
        &["get", "task", "one"],
        &["get", "agents"],
        &["get", "agent", "actor"],
        &["get", "workers"],
        &["get", "worker", "w"],
        &["capabilities"],
        &["describe", "one"],
        &["describe", "agent", "actor"],
        &["explain", "one"],
        &["wait", "one", "two"],
        &["update", "one", "--label", "a=b"],
        &["version"],
    ] {
        let read = async |format: &str| stage.rota(&[args, &["-o", format]].concat()).await;
        let json = read("json").await.json();
        assert!(json.is_object(), "{args:?} {json}");
        let yaml = read("yaml").await.done();
        let yaml: Value = serde_saphyr::from_str(&yaml)?;
        // What changes by itself is not compared.
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&yaml), keys(&json), "{args:?}");
        let lines = read("jsonl").await.done();
        let lines = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let list = json.as_object().unwrap().values().find_map(Value::as_array);
        let wanted = if args[0] == "get" && args.len() == 2 { list.unwrap().len() } else { lines.len() };
        assert_eq!(lines.len(), wanted, "{args:?}");
    }
    let one = stage.rota(&["get", "task", "one", "-o", "json"]).await.json();
    assert_eq!((&one["alias"], &one["status"]["result"]["text"]), (&"one".into(), &"- x".into()));
    // Logs are documents one after the other.
    let docs = stage.rota(&["events", "one", "-o", "yaml"]).await.done();
    let docs: Vec<Value> =
        docs.split("---\n").skip(1).map(serde_saphyr::from_str).collect::<Result<_, _>>()?;
    assert_eq!(docs.len().to_string(), one["status"]["logSeq"].as_str().unwrap());
    for format in ["json", "jsonl"] {
        let lines = stage.rota(&["logs", "one", "-o", format]).await.done();
        assert_eq!(
            lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).count(),
            docs.len()
        );
    }
    let applied = stage.rota(&["apply", "-f", "all.yaml", "-o", "json"]).await.done();
    let applied: Vec<Value> = applied.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(applied[0]["kind"], "agent");
    assert!(applied.iter().all(|one| one["outcome"] == "unchanged" || one["name"] == "one"), "{applied:?}");
    let run = stage.rota(&["run", "--agent", "actor", "x", "-o", "json"]).await.json();
    assert_eq!(run["status"]["state"], "TASK_STATE_SUCCEEDED");
    let id = stage.rota(&["run", "--detach", "--agent", "actor", "x", "-o", "jsonl"]).await.json();
    stage.rota(&["wait", id["uid"].as_str().unwrap()]).await.done();
    history::check(&stage.client()?, true).await?.check()
}

#[tokio::test]
async fn colours_only_where_they_are_wanted() -> Result<()> {
    let stage = filled().await?;
    let get = ["get", "tasks"];
    let colored = |answer: &Answer| answer.out.contains('\u{1b}') || answer.err.contains('\u{1b}');
    let plain = stage.rota(&get).await;
    assert!(plain.code == 0 && !colored(&plain));
    let always = stage.rota(&[&get[..], &["--color", "always"]].concat()).await;
    assert!(colored(&always), "{always:?}");
    let mut command = stage.command(&get);
    command.env("NO_COLOR", "1");
    assert!(!colored(&Answer::of(command, "").await));
    // On a terminal, which `script` makes.
    for (set, wanted) in [("", true), ("NO_COLOR=1 ", false), ("TERM=dumb ", false)] {
        let mut command = Command::new("script");
        let own = stage.command(&[]);
        for (name, value) in own.as_std().get_envs() {
            command.env(name, value.unwrap());
        }
        let line = format!("{set}{} get tasks", env!("CARGO_BIN_EXE_rota"));
        command.env_remove("NO_COLOR").env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
        let answer = Answer::of(command, "").await;
        assert!(answer.out.contains("one"), "{answer:?}");
        assert_eq!(colored(&answer), wanted, "{set:?} {answer:?}");
    }
    // Data has none, whatever is wanted.
    let json = stage.rota(&["get", "tasks", "-o", "json", "--color", "always"]).await;
    assert!(!json.out.contains('\u{1b}'));
    Ok(())
}

/// A command whose reader has gone before its first word.
async fn unheard(stage: &Stage, args: &[&str]) -> Result<(Option<i32>, String)> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = stage.command(args);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn()?;
    drop(command);
    let output = timeout(PATIENCE, child.wait_with_output()).await??;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn a_closed_pipe_is_no_error() -> Result<()> {
    let stage = filled().await?;
    for args in [
        &["get", "tasks"][..],
        &["get", "tasks", "-o", "json"],
        &["get", "tasks", "-o", "yaml"],
        &["describe", "one"],
        &["events", "one"],
        &["completion", "bash"],
        &["version"],
        &["--help"],
        &["get", "--help"],
    ] {
        assert_eq!(unheard(&stage, args).await?, (Some(0), String::new()), "{args:?}");
    }
    // One that would go on for ever ends with its next word.
    let changes = async || {
        loop {
            stage.rota(&["update", "one", "--suspend"]).await.done();
            stage.rota(&["update", "one", "--resume"]).await.done();
        }
    };
    for args in [&["watch"][..], &["events"]] {
        tokio::select! {
            ended = unheard(&stage, args) => assert_eq!(ended?, (Some(0), String::new()), "{args:?}"),
            () = changes() => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn completions_are_scripts() -> Result<()> {
    let stage = Stage::bare();
    for (shell, words) in [
        ("bash", &["complete -F", "_rota", "--idempotency-key"][..]),
        ("zsh", &["#compdef rota", "--idempotency-key"]),
        ("fish", &["complete -c rota", "idempotency-key"]),
    ] {
        let script = stage.rota(&["completion", shell]).await.done();
        assert!(words.iter().all(|word| script.contains(word)), "{shell}");
        std::fs::write(stage.dir().join(shell), &script)?;
        // Where the shell is there it is asked whether it can read it.
        let checked = Command::new(shell).arg("-n").arg(stage.dir().join(shell)).output().await;
        if let Ok(checked) = checked {
            assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    stage.rota(&["completion", "cmd"]).await.failed(2, &["error: ", "cmd"]);
    Ok(())
}
