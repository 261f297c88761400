//! Reports and results that cannot be accepted harm only their attempt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_proto::worker::v1::{Accept, Report, SessionRequest, resume_attempt};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

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
    worker.send(Outgoing::Result(Box::new(rota_proto::worker::v1::Result {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        kind: Some(rota_proto::worker::v1::result::Kind::Succeeded(result)),
        ..Default::default()
    })));
    assert!(worker.result_ack().await?);
    let status = tasks::ended(client, &large.name).await?.status.unwrap();
    assert_eq!(
        (status.state(), status.failure.unwrap().class()),
        (TaskState::Failed, v1::FailureClass::Invalid)
    );
    tasks::ended(client, &asks.name).await?;
    history::check(client, true).await?.check()
}

/// The memory of the control plane is bounded by what it reads, so it reads no further.
#[tokio::test]
async fn uncommitted_messages_hold_the_worker_back() -> Result<()> {
    const MESSAGES: i64 = 64;
    let setup = Setup::new(Backend::Memory);
    let full = Arc::clone(&setup.full);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let name = tasks::create(client, tasks::task("echo")).await?.name;
    let (sender, queue) = mpsc::channel(1);
    let send = async |kind| sender.send(SessionRequest { kind: Some(kind) }).await;
    send(Outgoing::Hello(Box::new(raw::hello("echo", "hand", 1)))).await?;
    let mut answers = client.workers().session(ReceiverStream::new(queue)).await?.into_inner();
    let assign = loop {
        match answers.message().await?.context("the session has ended")?.kind {
            Some(Incoming::Assign(assign)) => break *assign,
            _ => continue,
        }
    };
    let (task_id, fence) = (assign.task_id.clone(), assign.fence);
    send(Outgoing::Accept(Accept { task_id, fence, ..Accept::default() })).await?;
    tasks::until_state(client, &name, TaskState::Running).await?;
    full.store(true, Ordering::Relaxed);
    let text = "x".repeat(200 << 10);
    let mut sent = 0;
    let mut send_all = async || -> Result<()> {
        while sent < MESSAGES {
            // A mebibyte each.
            let events = (0..5).map(|_| raw::output(&text)).collect();
            let (task_id, first_attempt_seq) = (assign.task_id.clone(), sent * 5 + 1);
            send(Outgoing::Report(Report { task_id, fence, first_attempt_seq, events })).await?;
            sent += 1;
        }
        Ok(())
    };
    // Those that are taken arrive within milliseconds; waiting longer changes nothing.
    let taken = tokio::time::timeout(Duration::from_secs(5), send_all()).await;
    anyhow::ensure!(taken.is_err(), "all {MESSAGES} MiB were read, and none was committed");
    full.store(false, Ordering::Relaxed);
    send_all().await?;
    send(raw::success(&assign, MESSAGES * 5, "done")).await?;
    let status = tasks::ended(client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1));
    Ok(())
}

#[tokio::test]
async fn large_questions_are_cut_in_records() -> Result<()> {
    const LARGE: usize = 30 << 10;
    const MOST: usize = rota_proto::limits::QUESTION_BYTES;
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let name = tasks::create(client, tasks::task("echo")).await?.name;
    let assign = worker.take().await?;
    let mut question = raw::question("q");
    let Some(v1::event::Kind::InputRequest(asked)) = &mut question.kind else { anyhow::bail!("no question") };
    asked.prompt = "p".repeat(LARGE);
    asked.input_json = serde_json::json!({ "input": "i".repeat(LARGE) }).to_string();
    worker.report(&assign, 1, vec![question]);
    let task = tasks::until_state(client, &name, TaskState::InputRequired).await?;
    let open = &task.status.context("no status")?.pending_input[0];
    let lengths = (open.prompt.len(), open.input_json.len());
    // It ends with how much is missing.
    assert!(lengths.0.max(lengths.1) < MOST + 100 && open.input_incomplete, "{lengths:?}");
    let log = tasks::log(client, &name).await?;
    let whole = log.iter().any(|event| match &event.kind {
        Some(v1::event::Kind::InputRequest(logged)) => logged.prompt.len() == LARGE,
        _ => false,
    });
    assert!(whole, "the log has all of it");
    Ok(())
}
