//! The real Claude Code CLI in a whole Rota: what needs more than its runtime to show.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rota_proto::v1::{self, FailureClass, TaskState};
use rota_testkit::{Cluster, Keep, history, tasks};

/// The CLI, installed where it is not there yet. Without it the test fails.
fn cli() -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-claude");
    let output = std::process::Command::new(script).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A model that never answers: the watchdog ends the CLI, it is tried again, and then given up as what it is.
#[tokio::test]
async fn a_hanging_cli_is_ended_and_tried_again() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let cluster = Cluster::start(Keep::Sqlite).await?;
    let client = cluster.client();
    let program = tokio::task::spawn_blocking(cli).await??;
    let claude = v1::ClaudeRuntime { program, ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) };
    tasks::agent(client, "coder", runtime, &[]).await?;
    let _worker = cluster.worker("coder", "one", 1)?;

    let mut task = tasks::task("coder");
    let spec = task.spec.get_or_insert_default();
    let script = serde_json::json!([{"fail": {"hang_after": 0, "times": "always"}}]);
    spec.prompt = format!("Please do: MOCK{script}");
    spec.environment = [
        ("ANTHROPIC_BASE_URL".to_owned(), model.base_url()),
        // Made up for this run.
        ("ANTHROPIC_API_KEY".to_owned(), uuid::Uuid::new_v4().to_string()),
    ]
    .into();
    // Long enough for the CLI to start and ask on a busy machine.
    let silence = pbjson_types::Duration::from(Duration::from_secs(10));
    spec.limits = Some(v1::Limits { silence_timeout: Some(silence), ..Default::default() });
    spec.retry = Some(v1::RetryPolicy { max_attempts: 2, ..Default::default() });
    let task = tasks::create(client, task).await?;

    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    let failure = status.failure.clone().unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Failed, 2), "{status:?}");
    assert_eq!(failure.class(), FailureClass::Hang, "{failure:?}");
    assert!(model.counts().messages >= 2, "each try has asked the model: {:?}", model.counts());
    history::check(client, true).await?.check()
}
