//! Limits of a subscription, with the real CLI: what it learns from the model API holds back the agent's other tasks.

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState, WaitReason};
use rota_testkit::tasks;
use serde_json::json;

use crate::{Fixture, Graces, claude};

const AGENT: &str = "namespaces/default/agents/limited";
const TOKEN: &str = "not-a-real-token";

fn prompt(steps: &serde_json::Value) -> v1::Task {
    let mut task = tasks::task("limited");
    task.spec.get_or_insert_default().prompt = format!("Please do: MOCK{steps}");
    task
}

#[tokio::test]
async fn reached_limit_of_a_subscription_holds_tasks_back() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(claude::installed).await??;
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    let runtime = v1::runtime::Kind::Claude(v1::ClaudeRuntime { program, ..Default::default() });
    let spec = v1::AgentSpec {
        runtime: Some(v1::Runtime { kind: Some(runtime) }),
        environment: [
            ("ANTHROPIC_BASE_URL".to_owned(), model.base_url()),
            ("CLAUDE_CODE_OAUTH_TOKEN".to_owned(), TOKEN.to_owned()),
        ]
        .into(),
        ..Default::default()
    };
    let agent = v1::Agent { spec: Some(spec), ..Default::default() };
    client
        .agents()
        .create_agent(v1::CreateAgentRequest {
            parent: "namespaces/default".to_owned(),
            agent_id: "limited".to_owned(),
            agent: Some(agent),
            validate_only: false,
        })
        .await?;
    let _worker = fixture.worker("limited", "one", 2).await?;
    // Long enough for everything before the reset, on a busy machine too.
    let limit = json!({"name": "five_hour", "resets_in": 20});
    let fails = json!([{"text": "no", "fail": {"status": 429, "times": "always", "limit": limit}}]);
    let first = tasks::create(&client, prompt(&fails)).await?.name;
    let waits = |status: &v1::TaskStatus| status.waiting.iter().any(|one| one.reason() == WaitReason::Quota);
    let task = tasks::until(&client, &first, waits).await?;
    let waiting = task.status.context("no status")?.waiting.remove(0);
    assert_eq!(waiting.subject, "five_hour");
    let until = waiting.until.context("no end")?;
    let mut names = Vec::new();
    for number in 0..4 {
        let task = prompt(&json!([{"text": format!("answer {number}")}]));
        names.push(tasks::create(&client, task).await?.name);
    }
    let id = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let explained = fixture.rota(&["explain", &id(&names[3])]).await.success();
    assert!(explained.contains("five_hour") && !explained.contains(TOKEN), "{explained}");
    for command in [&["agents"][..], &["describe", "agent", "limited"], &["top", "--once"]] {
        let shown = fixture.rota(command).await.success();
        assert!(shown.contains("five_hour until"), "{command:?}: {shown}");
        // The agent's own environment is no secret.
        assert!(command[0] == "describe" || !shown.contains(TOKEN), "{command:?}: {shown}");
    }
    let report = fixture.rota(&["report"]).await.success();
    assert!(report.contains("five_hour") && !report.contains(TOKEN), "{report}");
    let request = v1::GetAgentRequest { name: AGENT.to_owned() };
    let status = client.agents().get_agent(request).await?.into_inner().status.unwrap_or_default();
    assert_eq!((status.cool_downs.len(), status.cool_downs[0].reset_known), (1, true));
    tasks::cancel(&client, &first).await?;
    // A restart in between changes nothing.
    fixture.kill_server().await;
    fixture.start_server().await?;
    let client = fixture.client()?;
    for name in &names {
        let status = tasks::ended(&client, name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{status:?}");
        let started = status.start_time.context("not started")?;
        assert!((started.seconds, started.nanos) >= (until.seconds, until.nanos), "{started:?} {until:?}");
    }
    // One call learned of the limit, and each task made one after it.
    assert_eq!(model.requests().iter().filter(|one| one.step.is_some()).count(), 1 + names.len());
    Ok(())
}
