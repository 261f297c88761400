//! Commands that follow a log across restarts of the control plane.

use anyhow::Result;
use rota_proto::v1::{self, event};
use rota_testkit::{history, tasks};
use serde_json::{Value, json};

use crate::process::Process;
use crate::{Fixture, Graces, claude, workload};

const COUNTS: &str = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo \"line $i\"; sleep 0.01; done\n\
                      until [ -e \"$GATE\" ]; do sleep 0.02; done; echo end";

#[tokio::test]
async fn logs_resume_after_server_restart() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let gate = fixture.dir().join("gate");
    let task = workload::shell(COUNTS, &[("GATE", gate.to_str().unwrap())]);
    let task = tasks::create(&client, task).await?;
    let mut logs = Process::start("logs", fixture.command(&["logs", "-f", &task.uid]));
    let mut events = Process::start("events", fixture.command(&["events", "-f", &task.uid, "-o", "jsonl"]));
    let mut wait = Process::start("wait", fixture.command(&["wait", &task.uid, "-o", "json"]));
    logs.prints("line 5").await;
    events.prints("logSeq").await;
    fixture.kill_server().await;
    fixture.start_server().await?;
    logs.prints("line 300").await;
    std::fs::write(gate, "")?;

    let logs = logs.ended().await;
    assert_eq!(logs.status.code(), Some(0), "{logs:?}");
    let lines: Vec<_> = logs.output.lines().filter(|line| line.starts_with("line ")).collect();
    let wanted: Vec<_> = (1..=300).map(|line| format!("line {line}")).collect();
    assert_eq!(lines, wanted);
    let events = events.ended().await;
    assert_eq!(events.status.code(), Some(0), "{events:?}");
    let seqs: Vec<i64> = events
        .output
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["logSeq"].as_str()?.parse().ok())
        .collect();
    assert_eq!(seqs, (1..=i64::try_from(seqs.len())?).collect::<Vec<_>>());
    assert!(wait.prints("TASK_STATE_SUCCEEDED").await.contains("state"));
    assert_eq!(wait.ended().await.status.code(), Some(0));
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn logs_resume_from_position() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let mut follow = Process::start("events of all", fixture.command(&["events", "-o", "jsonl"]));
    // Its first response has the token of its start.
    let first: Value = serde_json::from_str(&follow.prints("token").await)?;
    let token = first["token"].as_str().unwrap().to_owned();
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let line = "for i in 1 2 3; do echo \"line $i\"; sleep 0.1; done";
    fixture
        .rota(&["run", "--agent", "shell", "--name", "short", "--command", "--", "sh", "-c", line])
        .await
        .success();

    let whole = fixture.rota(&["events", "short", "-o", "jsonl"]).await.success();
    let all: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seq = |event: &Value| event["logSeq"].as_str().unwrap().parse::<usize>().unwrap();
    assert_eq!(all.iter().map(seq).collect::<Vec<_>>(), (1..=all.len()).collect::<Vec<_>>());
    for command in
        [&["events", "short"][..], &["logs", "short"], &["logs", "-f", "short"], &["events", "-f", "short"]]
    {
        let mut args = command.to_vec();
        args.extend(["--since", "3", "-o", "jsonl"]);
        let rest = fixture.rota(&args).await.success();
        assert_eq!(rest, whole.lines().skip(3).collect::<Vec<_>>().join("\n"), "{args:?}");
    }
    assert_eq!(fixture.rota(&["events", "short", "--since", "1000"]).await.success(), "");
    fixture.rota(&["events", "short", "--since", "soon"]).await.failed(2, &["error: ", "soon"]);

    // Another command resumes from that token.
    let mut again =
        Process::start("events since", fixture.command(&["events", "--since", &token, "-o", "jsonl"]));
    again.prints("TASK_STATE_SUCCEEDED").await;
    follow.prints("TASK_STATE_SUCCEEDED").await;
    again.kill().await;
    // With an invalid token the stream continues after a resync.
    let mut lost =
        Process::start("events", fixture.command(&["events", "--since", "nonsense", "-o", "jsonl"]));
    assert!(lost.prints("resync").await.contains("\"token\""));
    lost.kill().await;
    history::check(&client, true).await?.check()
}

/// A message of the real CLI is printed while the model writes it, and no more once it is stored.
#[tokio::test]
async fn logs_and_attach_print_messages_while_they_are_written() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(claude::installed).await??;
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let task = |script: &Value| {
        let mut task = tasks::task(workload::AGENT);
        let spec = task.spec.get_or_insert_default();
        let claude = v1::ClaudeRuntime { program: program.clone(), ..Default::default() };
        spec.runtime = Some(v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) });
        spec.prompt = format!("Please do: MOCK{script}");
        let key = uuid::Uuid::new_v4().to_string();
        let environment = [("ANTHROPIC_BASE_URL", model.base_url()), ("ANTHROPIC_API_KEY", key)];
        spec.environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        task
    };
    let lines: Vec<_> = (1..=20).map(|number| format!("line {number} \u{1b}]52;c;cm0K\u{7}.")).collect();
    let text = lines.join("\n");
    let slow = json!({"every_ms": 20, "chars": 8});

    // The model stops in the middle, for much longer than the test waits.
    let half = json!([{"text": text, "slow": slow, "pause": {"after": 30, "ms": 3_600_000}}]);
    let stuck = tasks::create(&client, task(&half)).await?;
    let mut logs = Process::start("logs", fixture.command(&["logs", "-f", &stuck.uid]));
    let mut attach = Process::start("attach", fixture.command(&["attach", &stuck.uid]));
    let mut raw = Process::start("raw", fixture.command(&["logs", "-f", &stuck.uid, "-o", "jsonl"]));
    // Parts of messages reach only those that watch by then.
    for process in [&mut logs, &mut attach] {
        process.prints("● Pending").await;
    }
    raw.prints("logSeq").await;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    for process in [&mut logs, &mut attach] {
        let line = process.prints("line 2 ").await;
        assert!(!line.contains('\u{1b}') && !line.contains('\u{7}'), "{line:?}");
    }
    let stored = tasks::log(&client, &stuck.name).await?;
    assert!(!stored.iter().any(|event| matches!(event.kind, Some(event::Kind::Message(_)))), "{stored:?}");
    raw.prints("runtime_started").await;
    assert_eq!(raw.count("line 2 "), 0, "programs read whole messages");
    tasks::cancel(&client, &stuck.name).await?;
    for process in [logs, attach, raw] {
        process.ended().await;
    }

    let whole = tasks::create(&client, task(&json!([{"text": text, "slow": slow}]))).await?;
    let logs = Process::start("logs", fixture.command(&["logs", "-f", &whole.uid])).ended().await;
    assert_eq!(logs.status.code(), Some(0), "{logs:?}");
    let printed: Vec<_> = logs.output.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(printed.len(), 20, "{logs:?}");
    assert!(!logs.output.contains('\u{1b}'), "{logs:?}");
    history::check(&client, true).await?.check()
}
