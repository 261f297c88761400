//! Commands that follow a log, also over the end of a control plane.

use anyhow::Result;
use rota_testkit::{history, tasks};
use serde_json::Value;

use crate::process::Process;
use crate::{Graces, Stage, work};

const COUNTS: &str = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo \"line $i\"; sleep 0.01; done\n\
                      until [ -e \"$GATE\" ]; do sleep 0.02; done; echo end";

#[tokio::test]
async fn every_line_comes_once_though_the_server_was_away() -> Result<()> {
    let mut stage = Stage::start(Graces::LONG).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let _worker = stage.worker(work::AGENT, "one", 1).await?;
    let gate = stage.dir().join("gate");
    let task = work::shell(COUNTS, &[("GATE", gate.to_str().unwrap())]);
    let task = tasks::create(&client, task).await?;
    let mut logs = Process::start("logs", stage.command(&["logs", "-f", &task.uid]));
    let mut events = Process::start("events", stage.command(&["events", "-f", &task.uid, "-o", "jsonl"]));
    let mut wait = Process::start("wait", stage.command(&["wait", &task.uid, "-o", "json"]));
    logs.says("line 5").await;
    events.says("logSeq").await;
    stage.kill_server().await;
    stage.start_server().await?;
    logs.says("line 300").await;
    std::fs::write(gate, "")?;

    let logs = logs.ended().await;
    assert_eq!(logs.status.code(), Some(0), "{logs:?}");
    let lines: Vec<_> = logs.said.lines().filter(|line| line.starts_with("line ")).collect();
    let wanted: Vec<_> = (1..=300).map(|line| format!("line {line}")).collect();
    assert_eq!(lines, wanted);
    let events = events.ended().await;
    assert_eq!(events.status.code(), Some(0), "{events:?}");
    let seqs: Vec<i64> = events
        .said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["logSeq"].as_str()?.parse().ok())
        .collect();
    assert_eq!(seqs, (1..=i64::try_from(seqs.len())?).collect::<Vec<_>>());
    assert!(wait.says("TASK_STATE_SUCCEEDED").await.contains("state"));
    assert_eq!(wait.ended().await.status.code(), Some(0));
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn a_log_is_read_from_where_one_was() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let mut follow = Process::start("events of all", stage.command(&["events", "-o", "jsonl"]));
    // Its first answer tells where it begins.
    let first: Value = serde_json::from_str(&follow.says("token").await)?;
    let token = first["token"].as_str().unwrap().to_owned();
    let _worker = stage.worker(work::AGENT, "one", 1).await?;
    let line = "for i in 1 2 3; do echo \"line $i\"; sleep 0.1; done";
    stage
        .rota(&["run", "--agent", "shell", "--name", "short", "--command", "--", "sh", "-c", line])
        .await
        .done();

    let whole = stage.rota(&["events", "short", "-o", "jsonl"]).await.done();
    let all: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seq = |event: &Value| event["logSeq"].as_str().unwrap().parse::<usize>().unwrap();
    assert_eq!(all.iter().map(seq).collect::<Vec<_>>(), (1..=all.len()).collect::<Vec<_>>());
    for command in
        [&["events", "short"][..], &["logs", "short"], &["logs", "-f", "short"], &["events", "-f", "short"]]
    {
        let mut args = command.to_vec();
        args.extend(["--since", "3", "-o", "jsonl"]);
        let rest = stage.rota(&args).await.done();
        assert_eq!(rest, whole.lines().skip(3).collect::<Vec<_>>().join("\n"), "{args:?}");
    }
    assert_eq!(stage.rota(&["events", "short", "--since", "1000"]).await.done(), "");
    stage.rota(&["events", "short", "--since", "soon"]).await.failed(2, &["error: ", "soon"]);

    // Another one goes on from the first one's token, and skips nothing.
    let mut again =
        Process::start("events since", stage.command(&["events", "--since", &token, "-o", "jsonl"]));
    again.says("TASK_STATE_SUCCEEDED").await;
    follow.says("TASK_STATE_SUCCEEDED").await;
    again.kill().await;
    // A token that cannot be used is no end: one is told to list anew, and goes on.
    let mut lost = Process::start("events", stage.command(&["events", "--since", "nonsense", "-o", "jsonl"]));
    assert!(lost.says("resync").await.contains("\"token\""));
    lost.kill().await;
    history::check(&client, true).await?.check()
}
