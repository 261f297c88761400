//! Transcripts of the real Claude Code CLI: at the end, while an attempt runs, and of several attempts.

use anyhow::{Context, Result};
use rota_proto::v1;
use rota_testkit::tasks;
use serde_json::{Value, json};

use crate::{Fixture, Graces, claude, workload};

struct Case {
    fixture: Fixture,
    model: rota_fake_model::Handle,
    program: String,
    _worker: crate::process::Process,
}

impl Case {
    async fn start() -> Result<Self> {
        let model = rota_fake_model::Options::default().start().await?;
        let program = tokio::task::spawn_blocking(claude::installed).await??;
        let fixture = Fixture::start(Graces::LONG).await?;
        workload::agent(&fixture.client()?).await?;
        let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
        Ok(Self { fixture, model, program, _worker })
    }

    async fn create(&self, script: &Value) -> Result<v1::Task> {
        let mut task = tasks::task(workload::AGENT);
        let spec = task.spec.get_or_insert_default();
        let allowed_tools = vec!["Bash".to_owned(), "Task".to_owned()];
        let claude = v1::ClaudeRuntime { program: self.program.clone(), allowed_tools, ..Default::default() };
        spec.runtime = Some(v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) });
        spec.prompt = format!("Please do: MOCK{script}");
        let key = uuid::Uuid::new_v4().to_string();
        let environment = [("ANTHROPIC_BASE_URL", self.model.base_url()), ("ANTHROPIC_API_KEY", key)];
        spec.environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        tasks::create(&self.fixture.client()?, task).await
    }

    async fn transcript(&self, args: &[&str]) -> String {
        let mut all = vec!["transcript"];
        all.extend(args);
        self.fixture.rota(&all).await.success()
    }
}

fn bash(command: &str) -> Value {
    json!({"name": "Bash", "input": {"command": command, "description": "Try it"}})
}

#[tokio::test]
async fn transcript_has_subagents_tools_and_costs() -> Result<()> {
    let case = Case::start().await?;
    let inner = json!([{"tools": [bash("echo of-the-subagent")]}, {"text": "the report"}]);
    let input = json!({"description": "Look", "prompt": format!("Please do: MOCK{inner}"), "subagent_type": "general-purpose"});
    let script = json!([
        {"thinking": "let me see", "text": "I begin.", "tools": [{"name": "Task", "input": input}]},
        {"tools": [bash("seq 1 200000")]},
        {"text": "All <b>done</b>."},
    ]);
    let task = case.create(&script).await?;
    tasks::ended(&case.fixture.client()?, &task.name).await?;

    let text = case.transcript(&[&task.uid]).await;
    for part in [
        "## Attempt 1",
        "I begin.",
        "let me see",
        "**Tool Task**",
        "Subagent general-purpose:",
        "> **Tool Bash**",
        "of-the-subagent",
        "tokens in",
        "≈ $",
        "> All \\<b>done\\</b>.",
        "rota download",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let lines = case.transcript(&[&task.uid, "-o", "jsonl"]).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str, tool: &str| {
        lines.iter().find(|line| line["type"] == kind && line["tool"] == tool).unwrap()
    };
    let subagent = of("toolCall", "Task")["callId"].clone();
    let below = lines.iter().find(|line| line["subagentOf"] == json!([subagent]) && line["tool"] == "Bash");
    assert!(below.is_some(), "{lines:#?}");
    // The whole output is a file of its own.
    let artifact = lines.iter().find_map(|line| line["artifact"].as_str().filter(|name| !name.is_empty()));
    let artifact = artifact.context("no artifact")?;
    let to = case.fixture.dir().join("outputs");
    case.fixture.rota(&["download", &task.uid, artifact, "--to", to.to_str().unwrap()]).await.success();
    assert!(std::fs::read_to_string(to.join(artifact))?.contains("\n200000"));

    let page = case.fixture.dir().join("page.html");
    let page_arg = page.to_str().unwrap();
    assert_eq!(case.transcript(&[&task.uid, "--to", page_arg]).await, "");
    let html = std::fs::read_to_string(&page)?;
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("All &lt;b&gt;done&lt;/b&gt;."), "{html}");
    case.fixture
        .rota(&["transcript", &task.uid, "--to", page_arg])
        .await
        .failed(1, &["exists already", "--force"]);
    case.transcript(&[&task.uid, "--to", page_arg, "--force"]).await;
    Ok(())
}

#[tokio::test]
async fn running_attempt_is_in_the_transcript() -> Result<()> {
    let case = Case::start().await?;
    let client = case.fixture.client()?;
    let script = json!([{"text": "Before.", "tools": [bash("echo ran")]}, {"text": "never", "pause": {"after": 1, "ms": 3_600_000}}]);
    let task = case.create(&script).await?;
    tasks::eventually("the result of the tool", async || {
        let log = tasks::log(&client, &task.name).await?;
        Ok(log.iter().any(|event| matches!(event.kind, Some(v1::event::Kind::ToolResult(_)))))
    })
    .await?;
    let text = case.transcript(&[&task.uid]).await;
    for part in ["Before.", "**Tool Bash**", "ran", "no transcript"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    tasks::cancel(&client, &task.name).await?;
    tasks::ended(&client, &task.name).await?;
    let text = case.transcript(&[&task.uid]).await;
    assert!(
        text.contains("Before.") && text.contains("**User**") && !text.contains("no transcript"),
        "{text}"
    );
    assert_eq!(text.matches("> Before.").count(), 1, "{text}");
    Ok(())
}
