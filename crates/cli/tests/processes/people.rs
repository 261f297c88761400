//! People in the loop: permissions that outlive a call, and inputs that they change. The real CLI.

use anyhow::{Context, Result};
use rota_client::Client;
use rota_proto::v1::{self, InputRequest, TaskState, event};
use rota_testkit::tasks;
use serde_json::{Value, json};

use crate::process::Process;
use crate::{Fixture, Graces, claude};

const AGENT: &str = "coder";

pub(crate) struct Site {
    pub(crate) fixture: Fixture,
    pub(crate) client: Client,
    pub(crate) model: rota_fake_model::Handle,
    worker: Process,
}

/// Starts a control plane, a model, and a worker of a Claude agent that asks.
async fn site() -> Result<Site> {
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(claude::installed).await??;
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    let permission_policy = v1::PermissionPolicy::Ask.into();
    let claude = v1::ClaudeRuntime { program, permission_policy, ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) };
    tasks::agent(&client, AGENT, runtime, &[]).await?;
    let worker = fixture.worker(AGENT, "w", 1).await?;
    Ok(Site { fixture, client, model, worker })
}

pub(crate) fn bash(command: &str) -> Value {
    json!({"tools": [{"name": "Bash", "input": {"command": command}}]})
}

impl Site {
    async fn task(&self, alias: &str, script: &Value) -> Result<String> {
        let mut task = v1::Task { alias: alias.to_owned(), ..tasks::task(AGENT) };
        let spec = task.spec.get_or_insert_default();
        spec.prompt = format!("Please do: MOCK{script}");
        spec.environment = [("ANTHROPIC_BASE_URL".to_owned(), self.model.base_url())].into();
        spec.secrets.insert("ANTHROPIC_API_KEY".to_owned(), format!("sk-ant-{}", uuid::Uuid::new_v4()));
        spec.retry = Some(v1::RetryPolicy { initial_backoff: Some(tasks::millis(10)), ..Default::default() });
        Ok(tasks::create(&self.client, task).await?.name)
    }

    /// Waits for a question about a command.
    async fn asked(&self, task: &str, command: &str) -> Result<InputRequest> {
        let open = |status: &v1::TaskStatus| {
            status.pending_input.iter().find(|asked| asked.input_json.contains(command)).cloned()
        };
        let found = tasks::until(&self.client, task, |status| open(status).is_some()).await;
        let log = tasks::log(&self.client, task).await?;
        let task = found.with_context(|| format!("{command}: {log:#?}"))?;
        open(&task.status.unwrap_or_default()).context("the question was answered")
    }

    async fn rota(&self, args: &[&str]) -> String {
        self.fixture.rota(args).await.success()
    }

    async fn outputs(&self, task: &str) -> Result<Vec<String>> {
        let log = tasks::log(&self.client, task).await?;
        let output = |event: &v1::Event| match &event.kind {
            Some(event::Kind::ToolResult(result)) => Some(result.output.trim().to_owned()),
            _ => None,
        };
        Ok(log.iter().filter_map(output).collect())
    }

    async fn questions(&self, task: &str) -> Result<Vec<String>> {
        let log = tasks::log(&self.client, task).await?;
        let question = |event: &v1::Event| match &event.kind {
            Some(event::Kind::InputRequest(asked)) => {
                let input: Value = serde_json::from_str(&asked.input_json).unwrap_or_default();
                Some(input["command"].as_str().unwrap_or_default().to_owned())
            }
            _ => None,
        };
        Ok(log.iter().filter_map(question).collect())
    }
}

/// What is allowed for a session is not asked again, also by an attempt that continues after the program was killed.
#[tokio::test]
async fn permissions_of_a_session_outlive_the_program() -> Result<()> {
    let site = site().await?;
    let kill = "test $ROTA_ATTEMPT = 2 || kill -9 $PPID";
    let script = json!([
        bash("git init one"), bash("git init two"), bash(kill), bash("git init three"),
        bash("perl -e 'print qq(original)'"), {"text": "done"},
    ]);
    let task = site.task("session", &script).await?;
    let first = site.asked(&task, "git init one").await?;
    assert!(first.rules.iter().any(|offered| offered.rule.starts_with("Bash(git init")), "{first:?}");
    let shown = site.rota(&["answer", "session"]).await;
    assert!(shown.contains("rule: Bash(git init"), "{shown}");
    site.rota(&["answer", "session", "--allow", "--for", "session"]).await;
    site.asked(&task, "kill").await?;
    site.rota(&["answer", "session", "--allow"]).await;
    // The program may not have written the call down, which is then made again.
    let again = |status: &v1::TaskStatus| status.attempt == 2 && !status.pending_input.is_empty();
    let status = tasks::until(&site.client, &task, again).await?.status.unwrap_or_default();
    if status.pending_input[0].input_json.contains("kill") {
        site.rota(&["answer", "session", "--allow"]).await;
    }
    site.asked(&task, "original").await?;
    let edit = r#"{"command": "echo edited"}"#;
    site.rota(&["answer", "session", "--allow", "--edit", edit]).await;
    let status = tasks::ended(&site.client, &task).await?.status.unwrap();
    let log = tasks::log(&site.client, &task).await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?} {log:#?}", status.failure);
    let asked = site.questions(&task).await?;
    assert!(asked.iter().all(|command| !command.contains("two") && !command.contains("three")), "{asked:?}");
    // What runs is what the person wrote, and the log has it.
    let outputs = site.outputs(&task).await?;
    assert!(outputs.iter().any(|output| output == "edited"), "{outputs:?}");
    assert!(!outputs.iter().any(|output| output.contains("original")), "{outputs:?}");
    assert!(site.rota(&["logs", "session"]).await.contains("with another input"));
    Ok(())
}

/// Rules of an agent hold for its later tasks until they are removed, and an update of the agent leaves them alone.
#[tokio::test]
async fn permissions_of_an_agent_hold_for_later_tasks() -> Result<()> {
    let site = site().await?;
    let script = json!([bash("git init one"), {"text": "done"}]);
    let task = site.task("first", &script).await?;
    let asked = site.asked(&task, "git init").await?;
    let rule = asked.rules.first().context("a rule")?.rule.clone();
    let refused =
        site.fixture.rota(&["answer", "first", "--allow", "--for", "agent", "--rule", "Bash(*)"]).await;
    assert_ne!(refused.code, 0, "only a rule of the question");
    site.rota(&["answer", "first", "--allow", "--for", "agent", "--rule", &rule]).await;
    tasks::ended(&site.client, &task).await?;
    assert_eq!(site.rota(&["permissions", AGENT]).await.trim(), rule);

    let name = rota_proto::names::agent(tasks::NAMESPACE, AGENT);
    let mut agent = site.client.get_agent(v1::GetAgentRequest { name }).await?;
    agent.spec.get_or_insert_default().permission_rules.clear();
    site.client.update_agent(v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() }).await?;
    let task = site.task("second", &script).await?;
    tasks::ended(&site.client, &task).await?;
    assert!(site.questions(&task).await?.is_empty());

    assert_eq!(site.rota(&["permissions", AGENT, "--remove", &rule]).await.trim(), "");
    let task = site.task("third", &script).await?;
    site.asked(&task, "git init").await?;
    site.rota(&["answer", "third", "--deny", "not here"]).await;
    let status = tasks::ended(&site.client, &task).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    let outputs = site.outputs(&task).await?;
    assert!(outputs.iter().any(|output| output.contains("not here")), "{outputs:?}");
    Ok(())
}

/// An attempt that waits for a person releases its slot. Its worker is killed; the answer continues the conversation on another one,
/// and is not asked for again.
#[tokio::test]
async fn waiting_releases_the_slot_until_the_answer() -> Result<()> {
    let mut site = site().await?;
    let name = rota_proto::names::agent(tasks::NAMESPACE, AGENT);
    let mut agent = site.client.get_agent(v1::GetAgentRequest { name }).await?;
    agent.spec.get_or_insert_default().release_waiting_after = Some(tasks::millis(300));
    site.client.update_agent(v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() }).await?;
    let question = json!({"question": "blue or green?", "header": "Color", "multiSelect": false, "options": [
        {"label": "blue", "description": "b"}, {"label": "green", "description": "g"}]});
    let ask = json!({"tools": [{"name": "AskUserQuestion", "input": {"questions": [question]}}]});
    // What was not answered in the attempt that asked is called again by the next one, which has the answer.
    let call = bash("perl -e 'print qq(allowed)'");
    let script = json!([call, call, ask, ask, {"text": "done"}]);
    let task = site.task("waits", &script).await?;
    let released = |status: &v1::TaskStatus| {
        status.waiting.iter().any(|wait| wait.reason() == v1::WaitReason::Answer)
            && !status.pending_input.is_empty()
    };
    let waits = tasks::until(&site.client, &task, released).await?.status.unwrap();
    assert_eq!((waits.state(), waits.attempt), (TaskState::Pending, 1), "{waits:?}");
    let spent = waits.usage.unwrap_or_default().output_tokens;
    assert!(site.rota(&["explain", "waits"]).await.contains("rota answer"));
    let described = site.rota(&["describe", "task", "waits"]).await;
    assert!(described.contains("Question") && described.contains("perl"), "{described}");
    // The only slot is free for another task meanwhile.
    let other = site.task("other", &json!([{"text": "done"}])).await?;
    let other = tasks::ended(&site.client, &other).await?.status.unwrap();
    assert_eq!((other.state(), other.worker.as_str()), (TaskState::Succeeded, "w"));

    site.worker.kill().await;
    site.worker = site.fixture.worker(AGENT, "w2", 1).await?;
    site.rota(&["answer", "waits", "--allow"]).await;
    // The question after it releases the slot too, of the second attempt.
    let asks = |status: &v1::TaskStatus| released(status) && status.attempt == 2;
    let waits = tasks::until(&site.client, &task, asks).await?.status.unwrap();
    assert!(waits.usage.unwrap_or_default().output_tokens > spent, "it has worked on");
    site.rota(&["answer", "waits", "green"]).await;
    let status = tasks::ended(&site.client, &task).await?.status.unwrap();
    let log = tasks::log(&site.client, &task).await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 3), "{:?} {log:#?}", status.failure);
    assert_eq!((status.worker.as_str(), status.worker_losses), ("w2", 0));
    // Each was asked once, and what was allowed was done once.
    let asked = site.questions(&task).await?;
    assert_eq!(asked.iter().filter(|command| command.contains("allowed")).count(), 1, "{asked:?}");
    assert_eq!(asked.len(), 2, "{asked:?}");
    let outputs = site.outputs(&task).await?;
    assert_eq!(outputs.iter().filter(|output| *output == "allowed").count(), 1, "{outputs:?} {log:#?}");
    assert!(outputs.iter().any(|output| output.contains("green")), "{outputs:?}");
    Ok(())
}
