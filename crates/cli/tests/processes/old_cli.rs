//! Versions of the Claude Code CLI that lack what workers use of it.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use rota_proto::v1;
use rota_testkit::tasks;

use crate::process::Process;
use crate::{Fixture, Graces};

/// Writes a CLI of this version, which answers the request for its usage with `usage`.
fn write(program: &Path, version: &str, usage: &str) -> Result<()> {
    let script = format!(
        r#"#!/bin/sh
if [ "$1" = --version ]; then echo '{version} (Claude Code)'; exit; fi
echo '{{"type": "control_response", "response": {{"subtype": "success", "request_id": "initialize"}}}}'
echo '{{"type": "control_response", "response": {{{usage}, "request_id": "usage"}}}}'
echo '{{"type": "system", "subtype": "init", "tools": ["Bash"]}}'
echo '{{"type": "result"}}'
"#
    );
    std::fs::write(program, script)?;
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Waits until the worker reports this version, and whether it lacks `get_usage`. Returns what it lacks.
async fn missing(client: &rota_client::Client, version: &str, usage: bool) -> Result<String> {
    let missing = RefCell::new(String::new());
    tasks::eventually("the parts that the CLI lacks", async || {
        let workers = tasks::workers(client).await?;
        let Some(worker) = workers.first() else { return Ok(false) };
        missing.replace(worker.runtime_missing.join("\n"));
        let missing = missing.borrow();
        let reported = missing.contains("the to-do list") && missing.contains("get_usage") == usage;
        Ok(worker.runtime_version == version && reported)
    })
    .await?;
    Ok(missing.into_inner())
}

#[tokio::test]
async fn what_a_cli_lacks_is_reported() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    let kind = v1::runtime::Kind::Claude(v1::ClaudeRuntime::default());
    tasks::agent(&client, "coder", v1::Runtime { kind: Some(kind) }, &[]).await?;
    let program = fixture.dir().join("claude");
    write(&program, "2.1.300", r#""subtype": "error""#)?;
    let mut command = fixture.command(&["worker", "--agent", "coder", "--worker", "one"]);
    command.arg("--state-dir").arg(fixture.state_dir()).arg("--claude-program").arg(&program);
    command.env("ROTA_TOKEN_FILE", fixture.worker_token("coder", "one").await?);
    let _worker = Process::start("one", command);

    // Before its first task.
    let found = missing(&client, "2.1.300", true).await?;
    assert!(found.contains("CLAUDE_CODE_PROJECT_DIR_NAME"), "{found}");
    assert!(fixture.rota(&["workers", "one"]).await.success().contains("get_usage"));

    // An attempt finds that it was updated.
    write(&program, "2.1.3010", r#""subtype": "success", "response": {"session": {}}"#)?;
    let mut task = tasks::task("coder");
    let spec = task.spec.get_or_insert_default();
    spec.prompt = "hi".to_owned();
    spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    let task = tasks::create(&client, task).await?;
    missing(&client, "2.1.3010", false).await?;
    // It may have ended.
    let _ = tasks::cancel(&client, &task.name).await;
    Ok(())
}
