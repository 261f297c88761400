//! What real processes tell a collector, set up as people do it: by the variables of the specification.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1;
use rota_telemetry::trace::hex;
use rota_telemetry::traces;
use rota_testkit::collector::{self, Collector, Seen};
use rota_testkit::tasks;
use serde_json::Value;

use crate::Stage;
use crate::process::Process;

const CALL: &str = "client rota.v1.TaskService/CreateTask\n  server rota.v1.TaskService/CreateTask";

/// Somebody who runs this program as a part of a trace.
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

/// A place whose processes send by a protocol, and only when they end.
fn stage(collector: &Collector, protocol: &str) -> Stage {
    let mut stage = Stage::bare();
    stage.environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000".to_owned()),
    ];
    stage
}

async fn worker(stage: &Stage, shell: &str) -> Result<Process> {
    let command = v1::CommandRuntime { shell: shell.to_owned(), ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(&stage.client()?, "shell", runtime, &[]).await?;
    stage.worker("shell", "one", 1).await
}

/// `rota run` within a trace.
async fn run(stage: &Stage, caller: &Caller) -> crate::answers::Answer {
    let mut command = stage.command(&["run", "--agent", "shell", "go"]);
    command.env("TRACEPARENT", caller.traceparent());
    crate::answers::Answer::of(command, "").await
}

async fn end(process: Process) {
    process.signal(Signal::SIGTERM);
    assert!(process.ended().await.status.success());
}

/// From the command into what the task's program does, and the figures beside it, by each protocol.
async fn one_trace_by(protocol: &'static str) -> Result<()> {
    let collector = Collector::start()?;
    let mut stage = stage(&collector, protocol);
    stage.start_server().await?;
    let tells = r#"echo '{"toolCall": {"callId": "1", "tool": "search"}}' > "$ROTA_EVENTS"
        echo '{"toolResult": {"callId": "1", "output": "found"}}' > "$ROTA_EVENTS""#;
    let worker = worker(&stage, tells).await?;
    let caller = Caller::new();
    let answer = run(&stage, &caller).await;
    assert_eq!(answer.code, 0);
    assert!(answer.err.ends_with(&format!("trace {}\n", caller.trace)), "{}", answer.err);
    end(worker).await;
    stage.stop_server().await;

    let spans = collector.trace(&caller.trace, 6).await?;
    let below = "\n    task succeeded\n      queue\n      attempt 1 succeeded\n        tool";
    assert_eq!(collector::tree(&spans, &caller.span)?, format!("{CALL}{below}"));
    let from = |span: &Seen| (span.name.clone(), span.side, span.service.clone());
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
    let ended = collector.figure("rota_tasks_ended_total", &labels, |count| count == 1.0).await?;
    assert_eq!((ended.kind, ended.service.as_str(), ended.via), ("counter", "rota-server", protocol));
    let took = collector.figure("rota_attempt_duration_seconds", &[("agent", "shell")], |_| true).await?;
    assert_eq!((took.kind, took.unit.as_str(), took.value), ("histogram", "s", 1.0));
    let threads = collector.figure("process_threads", &[], |count| count > 0.0).await?;
    assert_eq!(threads.kind, "gauge");
    Ok(())
}

#[tokio::test]
async fn one_trace_by_grpc() -> Result<()> {
    one_trace_by("grpc").await
}

#[tokio::test]
async fn one_trace_by_http_with_protobuf() -> Result<()> {
    one_trace_by("http/protobuf").await
}

#[tokio::test]
async fn one_trace_by_http_with_json() -> Result<()> {
    one_trace_by("http/json").await
}

/// A collector with TLS is trusted for a file of its own, or because the system trusts it, and otherwise not at all.
#[tokio::test]
async fn a_collector_with_tls() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let collector = Collector::start_with_tls(&made.cert.pem(), &made.signing_key.serialize_pem())?;
    for protocol in ["grpc", "http/protobuf"] {
        for trusted in [Some("OTEL_EXPORTER_OTLP_CERTIFICATE"), Some("SSL_CERT_FILE"), None] {
            let mut stage = stage(&collector, protocol);
            let file = stage.dir().join("collector.pem");
            std::fs::write(&file, made.cert.pem())?;
            stage.environment.extend(trusted.map(|name| (name, file.display().to_string())));
            stage.start_server().await?;
            let caller = Caller::new();
            let client = stage.client()?.in_trace(Some(&caller.traceparent()), None);
            tasks::create(&client, tasks::task("nobody")).await?;
            stage.stop_server().await;
            let told = collector.trace(&caller.trace, usize::from(trusted.is_some())).await?;
            assert_eq!(told.len(), usize::from(trusted.is_some()), "{protocol} {trusted:?}");
        }
    }
    Ok(())
}

/// Two control planes see one attempt, each a part of it; each sends what it knows when it is told to end.
#[tokio::test]
async fn no_span_is_lost_when_the_control_plane_ends_in_the_middle() -> Result<()> {
    let collector = Collector::start()?;
    let mut stage = stage(&collector, "grpc");
    stage.start_server().await?;
    let client = stage.client()?;
    let gate = stage.dir().join("gate");
    let gated = format!("echo $TRACEPARENT; until [ -e {} ]; do sleep 0.02; done", gate.display());
    let _worker = worker(&stage, &gated).await?;

    let caller = Caller::new();
    let within = client.in_trace(Some(&caller.traceparent()), None);
    let task = tasks::create(&within, tasks::task("shell")).await?;
    tasks::until_state(&client, &task.name, v1::TaskState::Running).await?;
    stage.stop_server().await;
    let mut names: Vec<_> =
        collector.trace(&caller.trace, 2).await?.into_iter().map(|span| span.name).collect();
    names.sort();
    assert_eq!(names, ["queue", "rota.v1.TaskService/CreateTask"]);

    stage.start_server().await?;
    tasks::connected(&client, "one").await?;
    std::fs::write(&gate, "")?;
    tasks::ended(&client, &task.name).await?;
    let printed = tasks::outputs(&tasks::log(&client, &task.name).await?).concat();
    stage.stop_server().await;
    let spans = collector.trace(&caller.trace, 4).await?;
    assert_eq!(
        collector::tree(&spans, &caller.span)?,
        "server rota.v1.TaskService/CreateTask\n  task succeeded\n    queue\n    attempt 1 succeeded"
    );
    let attempt = collector::named(&spans, "attempt")?;
    assert_eq!(printed.trim(), format!("00-{}-{}-01", caller.trace, attempt.id));
    Ok(())
}

/// Where nothing is sent, the trace is handed on all the same, told to whoever waits, and said in logs.
#[tokio::test]
async fn ids_are_there_without_a_collector() -> Result<()> {
    let mut stage = Stage::bare();
    stage.start_server().await?;
    let client = stage.client()?;
    let command =
        v1::CommandRuntime { shell: "echo $TRACEPARENT; sleep 600".to_owned(), ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(&client, "shell", runtime, &[]).await?;
    let mut command =
        stage.command(&["worker", "--agent", "shell", "--worker", "one", "--log-format", "json"]);
    command.arg("--state-dir").arg(stage.state_dir());
    let mut worker = Process::start("one", command);
    tasks::connected(&client, "one").await?;

    let caller = Caller::new();
    let mut command = stage.command(&["run", "--detach", "--agent", "shell", "go"]);
    command.env("TRACEPARENT", caller.traceparent());
    let id = crate::answers::Answer::of(command, "").await.done();
    let name = format!("{}/tasks/{id}", rota_proto::names::namespace(tasks::NAMESPACE));
    let task = tasks::until_state(&client, &name, v1::TaskState::Running).await?;
    assert_eq!(task.status.unwrap_or_default().trace_id, caller.trace);
    let described = stage.rota(&["describe", &id]).await.done();
    assert!(described.contains(&caller.trace), "{described}");

    stage.rota(&["cancel", &id]).await.done();
    let said: Value = serde_json::from_str(&worker.says("an attempt is cancelled").await)?;
    tasks::ended(&client, &name).await?;
    let printed = tasks::outputs(&tasks::log(&client, &name).await?).concat();
    let [_, trace, attempt, _] = printed.trim().split('-').collect::<Vec<_>>()[..] else {
        panic!("{printed}")
    };
    assert_eq!(trace, caller.trace);
    let logged = &said["span"];
    for (field, value) in
        [("task", id.as_str()), ("worker", "one"), ("trace_id", trace), ("span_id", attempt)]
    {
        assert_eq!(logged[field], value, "{field} in {said}");
    }
    assert_eq!(logged["attempt"], 1, "{said}");
    let waited = stage.rota(&["wait", &id]).await;
    assert!(waited.err.ends_with(&format!("trace {}\n", caller.trace)), "{waited:?}");
    Ok(())
}
