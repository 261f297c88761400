//! Commands that hold, continue, decide and end workflows and schedules.

use anyhow::Result;
use rota_testkit::tasks;

use crate::{Fixture, Graces};

/// The agent of its task has no worker.
const FLOW: &str = "\
steps:
  - {name: build, task: {target: {agent: absent}, prompt: x}}
  - {name: call, workflow: {spec: {steps: [{name: below, wait: {signal: never}}]}}}
finally: [{name: hang, wait: {signal: never}}]
";

#[tokio::test]
async fn commands_control_workflows_and_schedules() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let rota = async |line: &str| fixture.rota(&line.split_whitespace().collect::<Vec<_>>()).await;
    let until = async |line: &str, text: &str| {
        tasks::eventually(text, async || Ok(rota(line).await.out.contains(text))).await
    };
    std::fs::write(fixture.dir().join("flow.yaml"), FLOW)?;
    rota("workflow run -f flow.yaml --name flow").await.success();
    let its_tasks = "get tasks --workflow flow -o json";
    until(its_tasks, "DESIRED_STATE_RUN").await?;
    assert_eq!(rota("workflow pause flow --suspend-tasks").await.success(), "workflow/flow paused");
    until(its_tasks, "DESIRED_STATE_SUSPENDED").await?;
    assert!(rota("workflow get flow").await.success().contains("PAUSED"));
    assert_eq!(rota("workflow resume flow").await.success(), "workflow/flow resumed");
    until(its_tasks, "DESIRED_STATE_RUN").await?;
    assert!(!rota("workflow graph flow --format dot").await.success().contains("call/below"));
    let expanded = rota("workflow graph flow --format dot --expand").await.success();
    assert!(expanded.contains("call/below"), "{expanded}");
    rota("workflow delete flow").await.failed(1, &["the workflow has not ended"]);
    assert_eq!(rota("workflow cancel flow").await.success(), "workflow/flow cancelled");
    until("workflow get flow", "FINALIZING").await?;
    rota("workflow cancel flow --also-finally").await.success();
    assert_eq!(rota("workflow watch flow").await.code, 3);
    let deleted = rota("workflow delete flow").await;
    assert!(deleted.code == 0 && deleted.err.contains("workflow flow deleted"), "{deleted:?}");
    rota("workflow get flow").await.failed(4, &["does not exist"]);

    std::fs::write(fixture.dir().join("ask.yaml"), "steps: [{name: ask, approval: {prompt: 'Go?'}}]\n")?;
    rota("workflow run -f ask.yaml --name asks").await.success();
    until("workflow explain asks", "waits for a decision: Go?").await?;
    let rejected = rota("workflow reject asks --step ask --comment no").await;
    assert!(rejected.code == 0 && rejected.err.contains("step ask rejected"), "{rejected:?}");
    let watched = rota("workflow watch asks").await;
    assert!(watched.code == 1 && watched.out.contains("workflow FAILED"), "{watched:?}");

    let create = ["schedule", "create", "nightly", "--cron", "0 3 * * *", "--agent", "absent", "x"];
    fixture.rota(&create).await.success();
    let paused = rota("schedule pause nightly").await;
    assert!(paused.code == 0 && paused.err.contains("schedule nightly paused"), "{paused:?}");
    assert_eq!(rota("schedule get nightly -o json").await.json()["spec"]["paused"], true);
    let resumed = rota("schedule resume nightly").await;
    assert!(resumed.err.contains("schedule nightly resumed; next time: "), "{resumed:?}");
    assert_ne!(rota("schedule get nightly -o json").await.json()["spec"]["paused"], true);
    Ok(())
}
