//! Spans of real processes, set up as people do it: by the variables of the specification.

use anyhow::{Context, Result};
use rota_proto::{names, v1};
use rota_telemetry::trace::hex;
use rota_telemetry::traces;
use rota_testkit::collector::{self, Collector};
use rota_testkit::tasks;

use crate::Stage;

/// Two control planes see one attempt, each a part of it; each sends what it knows when it is told to end.
#[tokio::test]
async fn no_span_is_lost_when_the_control_plane_ends_in_the_middle() -> Result<()> {
    let collector = Collector::start()?;
    let mut stage = Stage::bare();
    stage.collector = Some(collector.endpoint());
    stage.start_server().await?;
    let client = stage.client()?;
    let gate = stage.dir().join("gate");
    let shell = format!("echo $TRACEPARENT; until [ -e {} ]; do sleep 0.02; done", gate.display());
    let command = v1::CommandRuntime { shell, ..Default::default() };
    let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) };
    tasks::agent(&client, "gated", runtime, &[]).await?;
    let _worker = stage.worker("gated", "one", 1).await?;

    let (trace, caller) = (hex(&traces::trace_id()), hex(&traces::span_id()));
    let parent = names::namespace(tasks::NAMESPACE);
    let request = v1::CreateTaskRequest { parent, task: Some(tasks::task("gated")), ..Default::default() };
    let task = client.in_trace(Some(&format!("00-{trace}-{caller}-01")), None).create_task(request).await?;
    tasks::until_state(&client, &task.name, v1::TaskState::Running).await?;
    stage.stop_server().await;
    let spans = collector.trace(&trace, 1).await?;
    assert_eq!(spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["queue"]);

    stage.start_server().await?;
    tasks::connected(&client, "one").await?;
    std::fs::write(&gate, "")?;
    tasks::ended(&client, &task.name).await?;
    let printed = tasks::outputs(&tasks::log(&client, &task.name).await?).concat();
    stage.stop_server().await;
    let spans = collector.trace(&trace, 3).await?;
    assert_eq!(collector::tree(&spans, &caller)?, "task succeeded\n  queue\n  attempt 1 succeeded");
    let attempt = collector::named(&spans, "attempt").context("no attempt")?;
    assert_eq!(printed.trim(), format!("00-{trace}-{}-01", attempt.id));
    Ok(())
}
