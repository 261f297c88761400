//! Traces and metrics that real processes export, configured by the standard OTEL_* variables.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1;
use rota_telemetry::trace::hex;
use rota_telemetry::traces;
use rota_testkit::collector::{self, Collector, ReceivedSpan};
use rota_testkit::tasks;
use serde_json::Value;

use crate::Fixture;
use crate::process::Process;

const CALL: &str = "client rota.v1.TaskService/CreateTask\n  server rota.v1.TaskService/CreateTask";

/// Traced caller of this program.
struct Caller {
    trace: String,
    span: String,
}

impl Caller {
    fn new() -> Self {
        Self { trace: hex(&traces::trace_id()), span: hex(&traces::span_id()) }
    }

    fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.span)
    }
}

/// Returns a fixture whose processes export with a protocol, and only on exit.
fn fixture(collector: &Collector, protocol: &str) -> Fixture {
    let mut fixture = Fixture::bare();
    fixture.environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000".to_owned()),
    ];
    fixture
}

async fn worker(fixture: &Fixture, shell: &str) -> Result<Process> {
    let command = v1::CommandRuntime { shell: shell.to_owned(), ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(&fixture.client()?, "shell", runtime, &[]).await?;
    fixture.worker("shell", "one", 1).await
}

/// Runs `rota run` within a trace.
async fn run(fixture: &Fixture, caller: &Caller) -> crate::responses::Response {
    let mut command = fixture.command(&["run", "--agent", "shell", "go"]);
    command.env("TRACEPARENT", caller.traceparent());
    crate::responses::Response::of(command, "").await
}

async fn end(process: Process) {
    process.signal(Signal::SIGTERM);
    assert!(process.ended().await.status.success());
}

/// Checks one trace from the command to the task's program, and the metrics, for a protocol.
async fn check_trace_over(protocol: &'static str) -> Result<()> {
    let collector = Collector::start()?;
    let mut fixture = fixture(&collector, protocol);
    fixture.start_server().await?;
    let shell = r#"echo '{"toolCall": {"callId": "1", "tool": "search"}}' > "$ROTA_EVENTS"
        echo '{"toolResult": {"callId": "1", "output": "found"}}' > "$ROTA_EVENTS""#;
    let worker = worker(&fixture, shell).await?;
    let caller = Caller::new();
    let response = run(&fixture, &caller).await;
    assert_eq!(response.code, 0);
    assert!(response.err.ends_with(&format!("trace {}\n", caller.trace)), "{}", response.err);
    end(worker).await;
    fixture.stop_server().await;

    let spans = collector.trace(&caller.trace, 6).await?;
    let below = "\n    task succeeded\n      queue\n      attempt 1 succeeded\n        tool";
    assert_eq!(collector::tree(&spans, &caller.span)?, format!("{CALL}{below}"));
    let from = |span: &ReceivedSpan| (span.name.clone(), span.side, span.service.clone());
    let from: Vec<_> = spans.iter().map(from).collect();
    let create = || "rota.v1.TaskService/CreateTask".to_owned();
    for (name, side, service) in [
        (create(), Some("client"), "rota"),
        (create(), Some("server"), "rota-server"),
        ("task".to_owned(), None, "rota-server"),
        ("tool".to_owned(), None, "rota-worker"),
    ] {
        assert!(from.contains(&(name.clone(), side, service.to_owned())), "{name} of {service}: {from:?}");
    }
    assert!(spans.iter().all(|span| span.via == protocol), "{spans:#?}");

    let labels = [("agent", "shell"), ("outcome", "succeeded")];
    let ended = collector.metric("rota_tasks_ended_total", &labels, |count| count == 1.0).await?;
    assert_eq!((ended.kind, ended.service.as_str(), ended.via), ("counter", "rota-server", protocol));
    let took = collector.metric("rota_attempt_duration_seconds", &[("agent", "shell")], |_| true).await?;
    assert_eq!((took.kind, took.unit.as_str(), took.value), ("histogram", "s", 1.0));
    let threads = collector.metric("process_threads", &[], |count| count > 0.0).await?;
    assert_eq!(threads.kind, "gauge");
    Ok(())
}

#[tokio::test]
async fn traces_are_exported_over_grpc() -> Result<()> {
    check_trace_over("grpc").await
}

#[tokio::test]
async fn traces_are_exported_over_http_protobuf() -> Result<()> {
    check_trace_over("http/protobuf").await
}

#[tokio::test]
async fn traces_are_exported_over_http_json() -> Result<()> {
    check_trace_over("http/json").await
}

#[tokio::test]
async fn collector_certificates_are_verified() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let collector = Collector::start_with_tls(&made.cert.pem(), &made.signing_key.serialize_pem())?;
    for protocol in ["grpc", "http/protobuf"] {
        for trusted in [Some("OTEL_EXPORTER_OTLP_CERTIFICATE"), Some("SSL_CERT_FILE"), None] {
            let mut fixture = fixture(&collector, protocol);
            let file = fixture.dir().join("collector.pem");
            std::fs::write(&file, made.cert.pem())?;
            fixture.environment.extend(trusted.map(|name| (name, file.display().to_string())));
            fixture.start_server().await?;
            let caller = Caller::new();
            let client = fixture.client()?.in_trace(Some(&caller.traceparent()), None);
            tasks::create(&client, tasks::task("missing")).await?;
            fixture.stop_server().await;
            let spans = collector.trace(&caller.trace, usize::from(trusted.is_some())).await?;
            assert_eq!(spans.len(), usize::from(trusted.is_some()), "{protocol} {trusted:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn restart_loses_no_spans() -> Result<()> {
    let collector = Collector::start()?;
    let mut fixture = fixture(&collector, "grpc");
    fixture.start_server().await?;
    let client = fixture.client()?;
    let gate = fixture.dir().join("gate");
    let gated = format!("echo $TRACEPARENT; until [ -e {} ]; do sleep 0.02; done", gate.display());
    let _worker = worker(&fixture, &gated).await?;

    let caller = Caller::new();
    let within = client.in_trace(Some(&caller.traceparent()), None);
    let task = tasks::create(&within, tasks::task("shell")).await?;
    tasks::until_state(&client, &task.name, v1::TaskState::Running).await?;
    fixture.stop_server().await;
    let mut names: Vec<_> =
        collector.trace(&caller.trace, 2).await?.into_iter().map(|span| span.name).collect();
    names.sort();
    assert_eq!(names, ["queue", "rota.v1.TaskService/CreateTask"]);

    fixture.start_server().await?;
    tasks::connected(&client, "one").await?;
    std::fs::write(&gate, "")?;
    tasks::ended(&client, &task.name).await?;
    let printed = tasks::outputs(&tasks::log(&client, &task.name).await?).concat();
    fixture.stop_server().await;
    let spans = collector.trace(&caller.trace, 4).await?;
    assert_eq!(
        collector::tree(&spans, &caller.span)?,
        "server rota.v1.TaskService/CreateTask\n  task succeeded\n    queue\n    attempt 1 succeeded"
    );
    let attempt = collector::named(&spans, "attempt")?;
    assert_eq!(printed.trim(), format!("00-{}-{}-01", caller.trace, attempt.id));
    Ok(())
}

#[tokio::test]
async fn trace_ids_exist_without_collector() -> Result<()> {
    let mut fixture = Fixture::bare();
    fixture.start_server().await?;
    let client = fixture.client()?;
    let command =
        v1::CommandRuntime { shell: "echo $TRACEPARENT; sleep 600".to_owned(), ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(&client, "shell", runtime, &[]).await?;
    let mut command =
        fixture.command(&["worker", "--agent", "shell", "--worker", "one", "--log-format", "json"]);
    command.arg("--state-dir").arg(fixture.state_dir());
    command.env("ROTA_TOKEN_FILE", fixture.worker_token("shell", "one").await?);
    let mut worker = Process::start("one", command);
    tasks::connected(&client, "one").await?;

    let caller = Caller::new();
    let mut command = fixture.command(&["run", "--detach", "--agent", "shell", "go"]);
    command.env("TRACEPARENT", caller.traceparent());
    let id = crate::responses::Response::of(command, "").await.success();
    let name = format!("{}/tasks/{id}", rota_proto::names::namespace(tasks::NAMESPACE));
    let task = tasks::until_state(&client, &name, v1::TaskState::Running).await?;
    assert_eq!(task.status.unwrap_or_default().trace_id, caller.trace);
    let described = fixture.rota(&["describe", &id]).await.success();
    assert!(described.contains(&caller.trace), "{described}");

    // The shell has run `echo` only then.
    tasks::until_printed(&client, &name).await?;
    fixture.rota(&["cancel", &id]).await.success();
    let line: Value = serde_json::from_str(&worker.prints("cancelling attempt").await)?;
    tasks::ended(&client, &name).await?;
    let printed = tasks::outputs(&tasks::log(&client, &name).await?).concat();
    let [_, trace, attempt, _] = printed.trim().split('-').collect::<Vec<_>>()[..] else {
        panic!("{printed}")
    };
    assert_eq!(trace, caller.trace);
    let logged = &line["span"];
    for (field, value) in
        [("task", id.as_str()), ("worker", "one"), ("trace_id", trace), ("span_id", attempt)]
    {
        assert_eq!(logged[field], value, "{field} in {line}");
    }
    assert_eq!(logged["attempt"], 1, "{line}");
    let waited = fixture.rota(&["wait", &id]).await;
    assert!(waited.err.ends_with(&format!("trace {}\n", caller.trace)), "{waited:?}");
    Ok(())
}
