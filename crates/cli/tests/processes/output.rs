//! Standard output: formats, colors, closed pipes, completions.

use std::process::Stdio;

use anyhow::Result;
use rota_testkit::history;
use rota_testkit::tasks::WAIT_TIMEOUT;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::responses::Response;
use crate::{Fixture, Graces};

async fn filled() -> Result<Fixture> {
    let fixture = Fixture::start(Graces::LONG).await?;
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
    fixture.apply("all.yaml", text).await.success();
    Ok(fixture)
}

#[tokio::test]
async fn every_format_is_parseable() -> Result<()> {
    let fixture = filled().await?;
    let _worker = fixture.worker("actor", "w", 1).await?;
    fixture.rota(&["wait", "one", "two"]).await.success();
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
        let read = async |format: &str| fixture.rota(&[args, &["-o", format]].concat()).await;
        let json = read("json").await.json();
        assert!(json.is_object(), "{args:?} {json}");
        let yaml = read("yaml").await.success();
        let yaml: Value = serde_saphyr::from_str(&yaml)?;
        // Values may change in between.
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&yaml), keys(&json), "{args:?}");
        let lines = read("jsonl").await.success();
        let lines = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let list = json.as_object().unwrap().values().find_map(Value::as_array);
        let wanted = if args[0] == "get" && args.len() == 2 { list.unwrap().len() } else { lines.len() };
        assert_eq!(lines.len(), wanted, "{args:?}");
    }
    let one = fixture.rota(&["get", "task", "one", "-o", "json"]).await.json();
    assert_eq!((&one["alias"], &one["status"]["result"]["text"]), (&"one".into(), &"- x".into()));
    // Logs are streams of documents.
    let docs = fixture.rota(&["events", "one", "-o", "yaml"]).await.success();
    let docs: Vec<Value> =
        docs.split("---\n").skip(1).map(serde_saphyr::from_str).collect::<Result<_, _>>()?;
    assert_eq!(docs.len().to_string(), one["status"]["logSeq"].as_str().unwrap());
    for format in ["json", "jsonl"] {
        let lines = fixture.rota(&["logs", "one", "-o", format]).await.success();
        assert_eq!(
            lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).count(),
            docs.len()
        );
    }
    let applied = fixture.rota(&["apply", "-f", "all.yaml", "-o", "json"]).await.success();
    let applied: Vec<Value> = applied.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(applied[0]["kind"], "agent");
    assert!(applied.iter().all(|one| one["outcome"] == "unchanged" || one["name"] == "one"), "{applied:?}");
    let run = fixture.rota(&["run", "--agent", "actor", "x", "-o", "json"]).await.json();
    assert_eq!(run["status"]["state"], "TASK_STATE_SUCCEEDED");
    let id = fixture.rota(&["run", "--detach", "--agent", "actor", "x", "-o", "jsonl"]).await.json();
    fixture.rota(&["wait", id["uid"].as_str().unwrap()]).await.success();
    history::check(&fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn colors_respect_flag_and_environment() -> Result<()> {
    let fixture = filled().await?;
    let get = ["get", "tasks"];
    let colored = |response: &Response| response.out.contains('\u{1b}') || response.err.contains('\u{1b}');
    let plain = fixture.rota(&get).await;
    assert!(plain.code == 0 && !colored(&plain));
    let always = fixture.rota(&[&get[..], &["--color", "always"]].concat()).await;
    assert!(colored(&always), "{always:?}");
    let mut command = fixture.command(&get);
    command.env("NO_COLOR", "1");
    assert!(!colored(&Response::of(command, "").await));
    // On a terminal, created by `script`.
    for (set, wanted) in [("", true), ("NO_COLOR=1 ", false), ("TERM=dumb ", false)] {
        let mut command = Command::new("script");
        let own = fixture.command(&[]);
        for (name, value) in own.as_std().get_envs() {
            command.env(name, value.unwrap());
        }
        let line = format!("{set}{} get tasks", env!("CARGO_BIN_EXE_rota"));
        command.env_remove("NO_COLOR").env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
        let response = Response::of(command, "").await;
        assert!(response.out.contains("one"), "{response:?}");
        assert_eq!(colored(&response), wanted, "{set:?} {response:?}");
    }
    // JSON never has colors.
    let json = fixture.rota(&["get", "tasks", "-o", "json", "--color", "always"]).await;
    assert!(!json.out.contains('\u{1b}'));
    Ok(())
}

/// Runs a command with a closed standard output.
async fn with_closed_pipe(fixture: &Fixture, args: &[&str]) -> Result<(Option<i32>, String)> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = fixture.command(args);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn()?;
    drop(command);
    let output = timeout(WAIT_TIMEOUT, child.wait_with_output()).await??;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn closed_pipes_exit_with_0() -> Result<()> {
    let fixture = filled().await?;
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
        assert_eq!(with_closed_pipe(&fixture, args).await?, (Some(0), String::new()), "{args:?}");
    }
    // Unbounded commands end with their next line.
    let changes = async || {
        loop {
            fixture.rota(&["update", "one", "--suspend"]).await.success();
            fixture.rota(&["update", "one", "--resume"]).await.success();
        }
    };
    for args in [&["watch"][..], &["events"]] {
        tokio::select! {
            ended = with_closed_pipe(&fixture, args) => assert_eq!(ended?, (Some(0), String::new()), "{args:?}"),
            () = changes() => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn completions_are_valid_scripts() -> Result<()> {
    let fixture = Fixture::bare();
    for (shell, words) in [
        ("bash", &["complete -F", "_rota", "--idempotency-key"][..]),
        ("zsh", &["#compdef rota", "--idempotency-key"]),
        ("fish", &["complete -c rota", "idempotency-key"]),
    ] {
        let script = fixture.rota(&["completion", shell]).await.success();
        assert!(words.iter().all(|word| script.contains(word)), "{shell}");
        std::fs::write(fixture.dir().join(shell), &script)?;
        // Checked by the shell where it is installed.
        let checked = Command::new(shell).arg("-n").arg(fixture.dir().join(shell)).output().await;
        if let Ok(checked) = checked {
            assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    fixture.rota(&["completion", "cmd"]).await.failed(2, &["error: ", "cmd"]);
    Ok(())
}
