//! The real Claude Code CLI in a whole cluster: what its runtime alone cannot show.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rota_proto::v1::{self, FailureClass, TaskState};
use rota_testkit::{Backend, Cluster, WorkerHandle, collector, history, tasks};
use serde_json::json;

use crate::traces::{Caller, creation_tree, shared_collector};

/// Returns the CLI, after installing it if missing. Without it the test fails.
fn installed_cli() -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-claude");
    let output = std::process::Command::new(script).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Starts a control plane, and a worker with the CLI.
pub(crate) async fn start_cluster(backend: Backend) -> Result<(Cluster, WorkerHandle)> {
    start_cluster_with(backend, v1::PermissionPolicy::Allow).await
}

async fn start_cluster_with(
    backend: Backend,
    policy: v1::PermissionPolicy,
) -> Result<(Cluster, WorkerHandle)> {
    let cluster = Cluster::start(backend).await?;
    let program = tokio::task::spawn_blocking(installed_cli).await??;
    let claude = v1::ClaudeRuntime { program, permission_policy: policy.into(), ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) };
    tasks::agent(cluster.client(), "coder", runtime, &[]).await?;
    let worker = cluster.worker("coder", "one", 1)?;
    Ok((cluster, worker))
}

/// Returns a task for the CLI that uses the given model.
pub(crate) fn claude_task(model: &rota_fake_model::Handle, script: &serde_json::Value) -> v1::Task {
    let mut task = tasks::task("coder");
    let spec = task.spec.get_or_insert_default();
    spec.prompt = format!("Please do: MOCK{script}");
    spec.environment = [
        ("ANTHROPIC_BASE_URL".to_owned(), model.base_url()),
        // Generated for this run.
        ("ANTHROPIC_API_KEY".to_owned(), uuid::Uuid::new_v4().to_string()),
    ]
    .into();
    task
}

/// One trace from the caller into the programs that the CLI's tools start, over every protocol.
#[tokio::test]
async fn claude_spans_are_children_of_attempt() -> Result<()> {
    shared_collector();
    let model = rota_fake_model::Options::default().start().await?;
    let (cluster, _worker) = start_cluster(Backend::Memory).await?;
    let tool = json!({"name": "Bash", "input": {"command": "echo at=$TRACEPARENT", "description": "Print"}});
    let script = json!([{"tools": [tool]}, {"text": "{{tool_result}}"}]);
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let mut task = claude_task(&model, &script);
        let environment = &mut task.spec.get_or_insert_default().environment;
        environment.insert("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), protocol.to_owned());
        let caller = Caller::new();
        let task = caller.create(&cluster, task).await?;
        let task = tasks::ended(cluster.client(), &task.name).await?;
        let status = task.status.unwrap_or_default();
        assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");

        let spans = caller.spans(11).await?;
        let cli = "attempt 1 succeeded\n    claude_code.interaction\n      claude_code.llm_request\n      claude_code.tool";
        let tool = "\n        claude_code.tool.blocked_on_user\n        claude_code.tool.execution\n      claude_code.llm_request";
        let below = format!("task succeeded\n  queue\n  {cli}{tool}");
        assert_eq!(collector::tree(&spans, &caller.span)?, creation_tree(&below), "{protocol}");
        let of_cli = spans.iter().filter(|span| span.name.starts_with("claude_code."));
        assert!(of_cli.clone().all(|span| span.via == protocol), "{spans:#?}");
        let execution = collector::named(&spans, "claude_code.tool.execution")?;
        let at = format!("at=00-{}-{}-01", caller.trace, execution.id);
        let text = status.result.unwrap_or_default().text;
        assert!(text.contains(&at), "{at} is not in {text:?}");
        let attempt = collector::named(&spans, "attempt")?;
        let interaction = collector::named(&spans, "claude_code.interaction")?;
        assert_eq!(interaction.parent, attempt.id);
    }
    Ok(())
}

/// A model that never responds: the watchdog kills the CLI, the task is retried, and then fails with that cause.
#[tokio::test]
async fn hanging_cli_is_killed_and_retried() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let (cluster, _worker) = start_cluster(Backend::Sqlite).await?;
    let client = cluster.client();

    let mut task = claude_task(&model, &json!([{"fail": {"hang_after": 0, "times": "always"}}]));
    let spec = task.spec.get_or_insert_default();
    // Long enough for the CLI to start and send a request on a busy machine.
    let silence = pbjson_types::Duration::from(Duration::from_secs(30));
    spec.limits = Some(v1::Limits { silence_timeout: Some(silence), ..Default::default() });
    spec.retry = Some(v1::RetryPolicy { max_attempts: 2, ..Default::default() });
    let task = tasks::create(client, task).await?;

    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    let failure = status.failure.clone().unwrap();
    assert_eq!(status.state(), TaskState::Failed, "{status:?}");
    assert_eq!(status.attempt, 2, "{status:?}");
    assert_eq!(failure.class(), FailureClass::Hang, "{failure:?}");
    assert!(model.counts().messages >= 2, "each try has asked the model: {:?}", model.counts());
    history::check(client, true).await?.check()
}

/// Denying one of two questions ends the tool that asked them: the other one is closed, and the task continues.
#[tokio::test]
async fn denied_question_settles_the_others() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let (cluster, _worker) = start_cluster_with(Backend::Memory, v1::PermissionPolicy::Ask).await?;
    let client = cluster.client();
    let question = |text: &str| {
        json!({"question": text, "header": "H", "multiSelect": false,
        "options": [{"label": "red", "description": "a"}, {"label": "blue", "description": "b"}]})
    };
    let input = json!({"questions": [question("Which color?"), question("And then?")]});
    let tool = json!({"name": "AskUserQuestion", "input": input});
    let task = claude_task(&model, &json!([{"tools": [tool]}, {"text": "done"}]));
    let task = tasks::create(client, task).await?;
    let asked = tasks::until(client, &task.name, |status| status.pending_input.len() == 2).await?;
    let request_id = asked.status.unwrap_or_default().pending_input[0].request_id.clone();
    let input = v1::TaskInput { request_id, decision: v1::Decision::Deny.into(), ..Default::default() };
    client.send_task_input(v1::SendTaskInputRequest { name: task.name.clone(), input: Some(input) }).await?;
    let status = tasks::ended(client, &task.name).await?.status.unwrap_or_default();
    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    let steps = tasks::steps(&tasks::log(client, &task.name).await?);
    assert!(steps.iter().any(|step| step == "INPUT_REQUIRED>RUNNING:input_settled"), "{steps:?}");
    Ok(())
}

/// A CLI that is too old for the worker's options fails with its version, and each worker reports which one it has.
#[tokio::test]
async fn workers_check_the_version_of_their_cli() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let kind = v1::runtime::Kind::Claude(v1::ClaudeRuntime::default());
    tasks::agent(client, "coder", v1::Runtime { kind: Some(kind) }, &[]).await?;
    let installed = tokio::task::spawn_blocking(installed_cli).await??;
    let old = cluster.folder().join("old-claude");
    std::fs::write(&old, "#!/bin/sh\necho '1.0.0 (Claude Code)'\n")?;
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let start = |name: &str, program: &Path| {
        let state = cluster.folder().join("workers").join(name);
        let mut options = cluster.worker_options(cluster.addr(), "coder", name, 1, state)?;
        options.claude_program = Some(program.to_owned());
        anyhow::Ok(WorkerHandle::start(options))
    };
    let _old = start("old", &old)?;
    let mut task = claude_task(&model, &json!([{"text": "done"}]));
    task.spec.get_or_insert_default().retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    let first = tasks::create(client, task.clone()).await?;
    let status = tasks::ended(client, &first.name).await?.status.unwrap_or_default();
    let failure = status.failure.unwrap_or_default();
    assert_eq!(failure.class(), FailureClass::Start, "{failure:?}");
    assert!(failure.message.contains("has version 1.0.0") && failure.hint.contains("update"), "{failure:?}");

    let _new = start("new", Path::new(&installed))?;
    task.spec.get_or_insert_default().target =
        Some(v1::Target { kind: Some(v1::target::Kind::Worker("new".to_owned())) });
    let second = tasks::create(client, task).await?;
    let status = tasks::ended(client, &second.name).await?.status.unwrap_or_default();
    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    // The path of the installed CLI contains its version.
    let has_version = |worker: &v1::Worker| {
        !worker.runtime_version.is_empty() && installed.contains(&format!("-{}", worker.runtime_version))
    };
    tasks::eventually("the version of the CLI", async || {
        let workers = tasks::workers(client).await?;
        Ok(workers.iter().any(|worker| worker.name.ends_with("new") && has_version(worker)))
    })
    .await
}

/// A budget over several attempts, each of which is killed after a message, is exceeded by less than one message.
#[tokio::test]
async fn budget_is_that_of_killed_attempts_too() -> Result<()> {
    const MESSAGE: i64 = 300_000;
    const BUDGET: i64 = 1_000_000;
    let model = rota_fake_model::Options::default().start().await?;
    let (cluster, _worker) = start_cluster(Backend::Memory).await?;
    let client = cluster.client();
    let gates = cluster.folder().join("gates");
    std::fs::create_dir(&gates)?;
    let command = format!(
        "until [ -e {}/$ROTA_ATTEMPT ]; do perl -e 'select(undef,undef,undef,0.05)'; done; kill -9 $PPID",
        gates.display()
    );
    let tool =
        json!({"name": "Bash", "input": {"command": command, "description": "Wait, then kill the CLI"}});
    // Opus 5.5: 20 dollars per million.
    let usage = json!({"input_tokens": 0, "output_tokens": 15_000});
    let script = json!(vec![json!({"tools": [tool], "usage": usage}); 8]);
    let mut task = claude_task(&model, &script);
    let spec = task.spec.get_or_insert_default();
    spec.limits = Some(v1::Limits { budget_micro_usd: BUDGET, ..Default::default() });
    spec.retry = Some(v1::RetryPolicy {
        max_attempts: 8,
        initial_backoff: Some(tasks::millis(1)),
        ..Default::default()
    });
    let name = tasks::create(client, task).await?.name;
    let cost = |status: &v1::TaskStatus| status.usage.as_ref().map_or(0, |usage| usage.cost_micro_usd);
    for attempt in 1..=3 {
        tasks::until(client, &name, |status| cost(status) == i64::from(attempt) * MESSAGE).await?;
        std::fs::write(gates.join(attempt.to_string()), "")?;
    }
    let status = tasks::ended(client, &name).await?.status.unwrap_or_default();
    let failure = status.failure.clone().unwrap_or_default();
    assert_eq!((failure.class(), status.attempt), (FailureClass::Budget, 4), "{failure:?}");
    assert!((BUDGET..BUDGET + MESSAGE).contains(&cost(&status)), "{status:?}");
    let requests = i64::try_from(model.counts().messages)?;
    assert_eq!(cost(&status), requests * MESSAGE, "every message is paid once");
    Ok(())
}
