//! Reports and results that cannot be accepted harm only their attempt.

use anyhow::Result;
use rota_proto::v1::{self, TaskState};
use rota_proto::worker::v1::resume_attempt;
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{history, tasks};

use crate::protocol::{error_reason, start_cluster};

#[tokio::test]
async fn unknown_fences_are_ignored() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 2)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let future = rota_proto::worker::v1::Assign { fence: assign.fence + 7, ..assign.clone() };
    let nowhere = rota_proto::worker::v1::Assign {
        task_id: "0190aaaa-0000-7000-8000-000000000001".into(),
        ..assign.clone()
    };
    for bad in [&future, &nowhere] {
        worker.report(bad, 1, vec![raw::output("from the future")]);
        match worker.receive().await? {
            Incoming::ReportAck(ack) => assert!(ack.stale, "{ack:?}"),
            other => anyhow::bail!("{other:?}"),
        }
        worker.succeed(bad, 0, "from the future");
        assert!(!worker.result_ack().await?);
    }
    worker.report(&assign, 1, vec![raw::output("now")]);
    worker.succeed(&assign, 1, "now");
    assert!(worker.result_ack().await?);
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.result.unwrap().text, "now");
    assert_eq!(tasks::outputs(&tasks::log(client, &task.name).await?), ["now"]);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn event_gap_ends_session_but_not_attempt() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.report(&assign, 1, vec![raw::output("1")]);
    worker.report(&assign, 3, vec![raw::output("3")]);
    assert_eq!(error_reason(&worker.session.end_status().await), "PROTOCOL_VIOLATION");
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&assign, 3, 0));
    let mut worker = RawWorker::join(client, hello).await?;
    assert_eq!(worker.welcome.resume[0].kind, Some(resume_attempt::Kind::ContinueAfter(1)));
    worker.report(&assign, 2, vec![raw::output("2"), raw::output("3")]);
    worker.succeed(&assign, 3, "done");
    assert!(worker.result_ack().await?);
    assert_eq!(tasks::outputs(&tasks::log(client, &task.name).await?), ["1", "2", "3"]);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn result_waits_for_all_events() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.report(&assign, 1, vec![raw::output("1")]);
    worker.succeed(&assign, 2, "done");
    assert_eq!(error_reason(&worker.session.end_status().await), "PROTOCOL_VIOLATION");
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&assign, 2, 0));
    let mut worker = RawWorker::join(client, hello).await?;
    assert_eq!(worker.welcome.resume[0].kind, Some(resume_attempt::Kind::ContinueAfter(1)));
    worker.report(&assign, 2, vec![raw::output("2")]);
    worker.succeed(&assign, 2, "done");
    assert!(worker.result_ack().await?);
    assert_eq!(tasks::outputs(&tasks::log(client, &task.name).await?), ["1", "2"]);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn repeated_gap_fails_only_its_attempt() -> Result<()> {
    for with_result in [false, true] {
        let cluster = start_cluster().await?;
        let client = cluster.client();
        let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 2)).await?;
        let fine = tasks::create(client, tasks::task("echo")).await?;
        let good = worker.take().await?;
        let task = tasks::create(client, tasks::task("echo")).await?;
        let bad = worker.take().await?;
        let gap = |worker: &RawWorker| match with_result {
            true => worker.succeed(&bad, 2, "done"),
            false => worker.report(&bad, 3, vec![raw::output("3")]),
        };
        gap(&worker);
        assert_eq!(error_reason(&worker.session.end_status().await), "PROTOCOL_VIOLATION");
        let mut hello = raw::hello("echo", "hand", 2);
        hello.running.extend([raw::running(&good, 1, 0), raw::running(&bad, 3, 0)]);
        let mut worker = RawWorker::join(client, hello).await?;
        // The worker has lost the event, and sends the same again: this session stays.
        gap(&worker);
        worker.report(&good, 1, vec![raw::output("1")]);
        worker.succeed(&good, 1, "done");
        let again = worker.take().await?;
        assert_eq!(again.task_id, bad.task_id);
        worker.succeed(&again, 0, "done");
        for name in [&fine.name, &task.name] {
            tasks::until_state(client, name, TaskState::Succeeded).await?;
        }
        let log = format!("{:?}", tasks::log(client, &task.name).await?);
        assert!(log.contains("event 1 of the attempt is missing"), "{log}");
        history::check(client, true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn too_many_questions_fail_only_their_attempt() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let questions = (0..40).map(|number| raw::question(&number.to_string())).collect();
    // All is sent before the worker learns that its first report was refused.
    worker.report(&assign, 1, questions);
    worker.report(&assign, 41, vec![raw::output("more")]);
    worker.succeed(&assign, 41, "done");
    assert!(!worker.result_ack().await?);
    // The session continues, and gets the next attempt.
    let again = worker.take().await?;
    assert_eq!(again.task_id, assign.task_id);
    worker.succeed(&again, 0, "done");
    assert!(worker.result_ack().await?);
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn invalid_attempt_keeps_session_open() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 2)).await?;
    let asks = tasks::create(client, tasks::task("echo")).await?;
    let asking = worker.take().await?;
    let good = tasks::create(client, tasks::task("echo")).await?;
    let fine = worker.take().await?;
    worker.report(&asking, 1, (0..100).map(|index| raw::question(&index.to_string())).collect());
    loop {
        if let Incoming::ReportAck(ack) = worker.receive().await? {
            assert!(ack.stale && ack.task_id == asking.task_id);
            break;
        }
    }
    let failure =
        tasks::until(client, &asks.name, |s| s.failure.is_some() || s.attempt > 1 || !s.waiting.is_empty())
            .await?;
    assert!(failure.status.is_some());
    tasks::cancel(client, &asks.name).await?;
    worker.succeed(&fine, 0, "done");
    assert!(worker.result_ack().await?);
    tasks::until_state(client, &good.name, TaskState::Succeeded).await?;
    // A result that cannot be stored fails its attempt: sent again on each reconnect, it would end every session.
    let large = tasks::create(client, tasks::task("echo")).await?;
    let assign = loop {
        let assign = worker.take().await?;
        if large.uid == assign.task_id {
            break assign;
        }
    };
    let data = pbjson_types::Struct { fields: [("x".to_owned(), "y".repeat((1 << 20) + 1).into())].into() };
    let result = v1::TaskResult { data: Some(data), ..Default::default() };
    worker.send(Outgoing::Result(rota_proto::worker::v1::Result {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        kind: Some(rota_proto::worker::v1::result::Kind::Succeeded(result)),
        ..Default::default()
    }));
    assert!(worker.result_ack().await?);
    let status = tasks::ended(client, &large.name).await?.status.unwrap();
    assert_eq!(
        (status.state(), status.failure.unwrap().class()),
        (TaskState::Failed, v1::FailureClass::Invalid)
    );
    tasks::ended(client, &asks.name).await?;
    history::check(client, true).await?.check()
}
