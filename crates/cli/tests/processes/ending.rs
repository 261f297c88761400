//! Agents that do not want to end: cancelled, silent for too long, out of time. Nothing of them is left.

use anyhow::Result;
use rota_proto::v1::{FailureClass, Limits, RetryPolicy, TaskState, event};
use rota_testkit::{history, tasks};

use crate::{Graces, Stage, seen, work};

fn limits(task: &mut rota_proto::v1::Task, limits: Limits) {
    let limits = Limits { cancel_grace: Some(tasks::millis(900)), ..limits };
    task.spec.get_or_insert_default().limits = Some(limits);
}

#[tokio::test]
async fn a_cancelled_agent_that_hangs_leaves_nothing() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let _worker = stage.worker(work::AGENT, "one", 1).await?;
    let mark = work::mark();
    let mut task = work::shell(&format!("{}{}", work::STRAYS, work::HANG), &[("MARK", &mark)]);
    limits(&mut task, Limits::default());
    let task = tasks::create(&client, task).await?;
    seen::are_there(&mark, work::SESSIONS).await?;
    let answer = stage.rota(&["cancel", &task.uid, "--reason", "enough"]).await;
    assert!(answer.done().ends_with("is ending"));
    tasks::until_state(&client, &task.name, TaskState::Cancelled).await?;
    // It is only told when nothing is left.
    let left = seen::marked(&mark);
    assert!(left.is_empty(), "{left:#?}");
    stage.rota(&["wait", &task.uid]).await.failed(3, &[]);
    // And its slot is free.
    let next = tasks::create(&client, work::shell("echo next", &[])).await?;
    tasks::until_state(&client, &next.name, TaskState::Succeeded).await?;
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn a_silent_agent_is_ended_and_tried_again() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let _worker = stage.worker(work::AGENT, "one", 1).await?;
    let (mark, once) = (work::mark(), stage.dir().join("once"));
    let line = format!(
        "echo began\nif [ -e \"$ONCE\" ]; then echo done; exit; fi\n: >\"$ONCE\"\n{}{}",
        work::STRAYS,
        work::HANG
    );
    let mut task = work::shell(&line, &[("MARK", &mark), ("ONCE", once.to_str().unwrap())]);
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
    let left = seen::marked(&mark);
    assert!(left.is_empty(), "{left:#?}");
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn an_agent_out_of_time_is_ended_for_good() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let _worker = stage.worker(work::AGENT, "one", 1).await?;
    let mark = work::mark();
    // It is not silent: it prints until the end.
    let line =
        format!("{}\ntrap '' INT TERM HUP\nwhile :; do echo still here; sleep 0.1; done", work::STRAYS);
    let mut task = work::shell(&line, &[("MARK", &mark)]);
    let time = |millis| Some(tasks::millis(millis));
    limits(&mut task, Limits { timeout: time(3000), silence_timeout: time(60_000), ..Default::default() });
    let name = tasks::create(&client, task).await?.name;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    let failure = status.failure.clone().unwrap();
    assert_eq!((status.state(), failure.class()), (TaskState::Failed, FailureClass::Timeout), "{status:?}");
    assert_eq!(status.attempt, 1);
    // The worker ends it by its own clock; the control plane, whose clock ran out too, may have told first.
    seen::none_is_left(&mark).await?;
    history::check(&client, true).await?.check()
}
