//! Agents that do not exit by themselves: cancelled, silent, timed out. No process is left.

use anyhow::Result;
use rota_proto::v1::{FailureClass, Limits, RetryPolicy, TaskState, event};
use rota_testkit::{history, tasks};

use crate::{Fixture, Graces, procfs, workload};

fn limits(task: &mut rota_proto::v1::Task, limits: Limits) {
    let limits = Limits { cancel_grace: Some(tasks::millis(900)), ..limits };
    task.spec.get_or_insert_default().limits = Some(limits);
}

#[tokio::test]
async fn cancelled_agents_leave_no_processes() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let mark = workload::mark();
    let mut task = workload::shell(&format!("{}{}", workload::ORPHANS, workload::HANG), &[("MARK", &mark)]);
    limits(&mut task, Limits::default());
    let task = tasks::create(&client, task).await?;
    procfs::wait_for_sessions(&mark, workload::SESSIONS).await?;
    let response = fixture.rota(&["cancel", &task.uid, "--reason", "enough"]).await;
    assert!(response.success().ends_with("is being cancelled"));
    tasks::until_state(&client, &task.name, TaskState::Cancelled).await?;
    // The task is cancelled only once no process is left.
    let left = procfs::marked(&mark);
    assert!(left.is_empty(), "{left:#?}");
    fixture.rota(&["wait", &task.uid]).await.failed(3, &[]);
    // Its slot is free.
    let next = tasks::create(&client, workload::shell("echo next", &[])).await?;
    tasks::until_state(&client, &next.name, TaskState::Succeeded).await?;
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn silent_agents_are_retried() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let (mark, once) = (workload::mark(), fixture.dir().join("once"));
    let line = format!(
        "echo began\nif [ -e \"$ONCE\" ]; then echo done; exit; fi\n: >\"$ONCE\"\n{}{}",
        workload::ORPHANS,
        workload::HANG
    );
    let mut task = workload::shell(&line, &[("MARK", &mark), ("ONCE", once.to_str().unwrap())]);
    limits(&mut task, Limits { silence_timeout: Some(tasks::millis(2000)), ..Default::default() });
    // More than two only if the machine is so busy that a shell needs seconds to start.
    let retry =
        RetryPolicy { max_attempts: 10, initial_backoff: Some(tasks::millis(10)), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    let name = tasks::create(&client, task).await?.name;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    assert!(status.attempt >= 2);
    assert_eq!(status.result.unwrap().text, "began\ndone");
    let log = tasks::log(&client, &name).await?;
    let first = log.iter().find_map(|event| match &event.kind {
        Some(event::Kind::State(change)) => change.failure.clone(),
        _ => None,
    });
    assert_eq!(first.unwrap().class(), FailureClass::Hang);
    let left = procfs::marked(&mark);
    assert!(left.is_empty(), "{left:#?}");
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn timed_out_agents_fail() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let mark = workload::mark();
    // It is not silent: it prints until the end.
    let line =
        format!("{}\ntrap '' INT TERM HUP\nwhile :; do echo still here; sleep 0.1; done", workload::ORPHANS);
    let mut task = workload::shell(&line, &[("MARK", &mark)]);
    let time = |millis| Some(tasks::millis(millis));
    limits(&mut task, Limits { timeout: time(3000), silence_timeout: time(60_000), ..Default::default() });
    let name = tasks::create(&client, task).await?.name;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    let failure = status.failure.clone().unwrap();
    assert_eq!((status.state(), failure.class()), (TaskState::Failed, FailureClass::Timeout), "{status:?}");
    assert_eq!(status.attempt, 1);
    // Both the worker and the control plane enforce the timeout.
    procfs::wait_for_none(&mark).await?;
    history::check(&client, true).await?.check()
}
