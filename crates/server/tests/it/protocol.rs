//! Workers that violate the session protocol harm only themselves.

use anyhow::Result;
use rota_proto::v1::{self, TaskState};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_proto::worker::v1::{Accept, Draining, Hello, SessionResponse, WorkerHeartbeat, resume_attempt};
use rota_testkit::raw::{self, RawSession, RawWorker};
use rota_testkit::{Backend, Cluster, history, tasks};
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) fn error_reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

pub(crate) async fn start_cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    Ok(cluster)
}

#[tokio::test]
async fn hello_is_required_first_and_once() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    for first in [
        Outgoing::Heartbeat(WorkerHeartbeat::default()),
        Outgoing::Draining(Draining::default()),
        Outgoing::Accept(Accept {
            task_id: "0190aaaa-0000-7000-8000-000000000001".into(),
            fence: 1,
            ..Accept::default()
        }),
    ] {
        let status = RawSession::open(client, Some(first)).await?.end_status().await;
        assert_eq!(
            (status.code(), error_reason(&status).as_str()),
            (Code::InvalidArgument, "PROTOCOL_VIOLATION"),
            "{status:?}"
        );
    }
    // Closing without a message is no error.
    let mut session = RawSession::open(client, None).await?;
    session.close_send();
    assert_eq!(session.end_status().await.code(), Code::Ok);
    let mut twice = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    twice.send(Outgoing::Hello(Box::new(raw::hello("echo", "hand", 1))));
    let status = twice.session.end_status().await;
    assert_eq!(error_reason(&status), "PROTOCOL_VIOLATION");
    Ok(())
}

#[tokio::test]
async fn invalid_hello_is_rejected() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let good = || raw::hello("echo", "hand", 1);
    let running = |task: &str, fence| rota_proto::worker::v1::RunningAttempt {
        task_id: task.into(),
        fence,
        ..Default::default()
    };
    let cases: [(Hello, &str, &str); 11] = [
        (Hello { protocol_version: 3, ..good() }, "PROTOCOL_VERSION_UNSUPPORTED", "3"),
        (Hello { protocol_version: 0, ..good() }, "PROTOCOL_VERSION_UNSUPPORTED", "0"),
        (Hello { namespace: "No".into(), ..good() }, "INVALID_FIELD", "hello.namespace"),
        (Hello { agent: String::new(), ..good() }, "INVALID_FIELD", "hello.agent"),
        (Hello { worker: "a/b".into(), ..good() }, "INVALID_FIELD", "hello.worker"),
        (Hello { slots: 0, ..good() }, "INVALID_FIELD", "hello.slots"),
        (Hello { slots: 5000, ..good() }, "INVALID_FIELD", "hello.slots"),
        (Hello { instance: String::new(), ..good() }, "INVALID_FIELD", "hello.instance"),
        (
            Hello { capabilities: vec!["two words".into()], ..good() },
            "INVALID_FIELD",
            "hello.capabilities[0]",
        ),
        (Hello { running: vec![running("x", 1)], ..good() }, "INVALID_FIELD", "hello.running[0].task_id"),
        (
            Hello { running: vec![running("0190aaaa-0000-7000-8000-000000000001", -1)], ..good() },
            "INVALID_FIELD",
            "hello.running[0].fence",
        ),
    ];
    for (hello, wanted, text) in cases {
        let status = RawSession::open(client, Some(Outgoing::Hello(Box::new(hello.clone()))))
            .await?
            .end_status()
            .await;
        assert_eq!(error_reason(&status), wanted, "{hello:?}: {status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    assert!(tasks::workers(client).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn foreign_task_is_not_touched() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut owner = RawWorker::join(client, raw::hello("echo", "owner", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = owner.take().await?;
    let mut thief = RawWorker::join(client, raw::hello("echo", "thief", 1)).await?;
    thief.accept(&assign);
    thief.report(&assign, 1, vec![raw::output("mine")]);
    thief.succeed(&assign, 1, "mine");
    assert!(!thief.result_ack().await?);
    let mut hello = raw::hello("echo", "thief", 1);
    hello.running.push(raw::running(&assign, 1, 0));
    let thief = RawWorker::join(client, hello).await?;
    assert!(matches!(thief.welcome.resume[0].kind, Some(resume_attempt::Kind::Abandon(_))));
    owner.succeed(&assign, 0, "done");
    assert!(owner.result_ack().await?);
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.worker.as_str(), "owner");
    assert_eq!(status.result.unwrap().text.as_str(), "done");
    assert!(tasks::outputs(&tasks::log(client, &task.name).await?).is_empty());
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn garbage_closes_only_its_connection() -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster = start_cluster().await?;
    let client = cluster.client();
    // Not HTTP at all.
    let mut stream = tokio::net::TcpStream::connect(cluster.addr()).await?;
    stream.write_all(&[0xff; 4096]).await?;
    let _ = stream.read_to_end(&mut Vec::new()).await;
    // A message of another type, whose fields do not match.
    let channel = rota_testkit::client::lazy_channel(&rota_testkit::client::Options::new(format!(
        "http://{}",
        cluster.addr()
    )))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let codec = tonic_prost::ProstCodec::<v1::Progress, SessionResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/rota.worker.v1.WorkerService/Session");
    let garbage = tokio_stream::once(v1::Progress { fraction: 0.5, step: "x".into() });
    let mut answers = grpc.streaming(tonic::Request::new(garbage), path, codec).await?.into_inner();
    assert!(answers.message().await.is_err());
    // Within a session, too: an invalid task id, and a negative fence.
    for (id, fence) in [("x", 1), ("0190aaaa-0000-7000-8000-000000000001", -1)] {
        let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
        worker.send(Outgoing::Accept(Accept { task_id: id.into(), fence, ..Accept::default() }));
        assert_eq!(error_reason(&worker.session.end_status().await), "INVALID_FIELD");
    }
    let _worker = cluster.worker("echo", "one", 1)?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn newer_process_supersedes_older_session() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut older = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    older.take().await?;
    tasks::until_state(client, &task.name, TaskState::Running).await?;
    let mut hello = raw::hello("echo", "hand", 1);
    hello.instance = "another process".to_owned();
    let mut newer = RawWorker::join(client, hello).await?;
    let status = older.session.end_status().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(error_reason(&status).as_str(), "WORKER_REPLACED");
    // It does not get its name back after a reconnect either.
    let back = Hello { last_epoch: 1, ..raw::hello("echo", "hand", 1) };
    let status = RawSession::open(client, Some(Outgoing::Hello(Box::new(back)))).await?.end_status().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(error_reason(&status).as_str(), "WORKER_REPLACED");
    // The attempt of the older process does not continue in the newer one: it is retried.
    let assign = newer.take().await?;
    assert_eq!(assign.attempt, 2);
    // The same process may reconnect.
    let mut hello = raw::hello("echo", "hand", 1);
    hello.instance = "another process".to_owned();
    hello.running.push(raw::running(&assign, 0, 0));
    let mut newest = RawWorker::join(client, hello).await?;
    assert_eq!(error_reason(&newer.session.end_status().await), "WORKER_SUPERSEDED");
    newest.succeed(&assign, 0, "done");
    assert!(newest.result_ack().await?);
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.attempt, 2);
    assert_eq!(status.worker_losses, 1);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn rejected_assignment_moves_to_another_worker() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut deaf = RawWorker::join(client, raw::hello("echo", "deaf", 1)).await?;
    let mut task = tasks::task("echo");
    task.spec.get_or_insert_default().limits =
        Some(v1::Limits { cancel_grace: Some(tasks::millis(100)), ..Default::default() });
    let task = tasks::create(client, task).await?;
    let assign = deaf.next_assignment().await?;
    let _other = cluster.worker("echo", "other", 1)?;
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.attempt, 1);
    assert_eq!(status.worker_losses, 0);
    assert_eq!(status.worker.as_str(), "other");
    let steps = tasks::steps(&tasks::log(client, &task.name).await?);
    assert!(steps.contains(&"ASSIGNED>PENDING:not_taken".to_owned()), "{steps:?}");
    // It receives a Cancel and never confirms. Its slot is released nevertheless after the timeout.
    match deaf.receive().await? {
        Incoming::Cancel(cancel) => assert_eq!(cancel.fence, assign.fence),
        other => anyhow::bail!("{other:?}"),
    }
    let only = tasks::create(client, tasks::task_on("deaf")).await?;
    assert_eq!(only.status.unwrap().state(), TaskState::Queued);
    let next = deaf.take().await?;
    deaf.accept(&assign);
    match deaf.receive().await? {
        Incoming::ReportAck(ack) => assert!(ack.stale && ack.fence == assign.fence),
        other => anyhow::bail!("{other:?}"),
    }
    deaf.succeed(&next, 0, "done");
    assert!(deaf.result_ack().await?);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn rejecting_worker_is_offered_less_often() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut picky = RawWorker::join(client, raw::hello("echo", "picky", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    for _ in 0..3 {
        let assign = picky.next_assignment().await?;
        assert_eq!(assign.attempt, 1);
        picky.reject(&assign, "not today");
    }
    let assign = picky.take().await?;
    picky.succeed(&assign, 0, "well then");
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    assert_eq!(status.attempt, 1);
    let micros = |at: &pbjson_types::Timestamp| at.seconds * 1_000_000 + i64::from(at.nanos) / 1000;
    let log = tasks::log(client, &task.name).await?;
    let waits: Vec<_> = log
        .iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::State(change)) if change.reason == "rejected" => Some(
                change.retry_time.as_ref().map_or(0, |at| micros(at) - micros(event.time.as_ref().unwrap())),
            ),
            _ => None,
        })
        .collect();
    // From the second rejection on, between half and all of a delay that doubles.
    assert_eq!(waits.len(), 3);
    assert_eq!(waits[0], 0);
    assert!(
        (500_000..=1_000_000).contains(&waits[1]) && (1_000_000..=2_000_000).contains(&waits[2]),
        "{waits:?}"
    );
    history::check(client, true).await?.check()
}

/// Whatever made it stale, its slot is free when the worker reports its end, and not before.
#[tokio::test]
async fn stale_attempt_occupies_slot_until_end() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    tasks::create(client, tasks::task("echo")).await?;
    let bad = worker.take().await?;
    // By a lost session: the task moves while the worker is disconnected, and the worker still ends it when it is back.
    worker.close().await;
    let mut other = RawWorker::join(client, raw::hello("echo", "other", 1)).await?;
    let again = other.take().await?;
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&bad, 0, 0));
    let mut worker = RawWorker::join(client, hello).await?;
    assert!(matches!(worker.welcome.resume[0].kind, Some(resume_attempt::Kind::Abandon(_))));
    let waits = tasks::create(client, tasks::task_on("hand")).await?;
    assert_eq!(waits.status.unwrap().state(), TaskState::Queued);
    worker.report(&bad, 1, vec![raw::output("late")]);
    assert!(matches!(worker.receive().await?, Incoming::ReportAck(ack) if ack.stale));
    worker.report_cancelled(&bad);
    assert!(matches!(worker.receive().await?, Incoming::ResultAck(ack) if !ack.accepted));
    // Within a session: its report cannot be stored.
    let bad = worker.take().await?;
    worker.report(&bad, 1, (0..100).map(|index| raw::question(&index.to_string())).collect());
    assert!(matches!(worker.receive().await?, Incoming::ReportAck(ack) if ack.stale));
    tasks::until(client, &waits.name, |status| status.state() != TaskState::Running).await?;
    let next = tasks::create(client, tasks::task_on("hand")).await?;
    assert_eq!(next.status.unwrap().state(), TaskState::Queued);
    assert_eq!(tasks::workers(client).await?[0].tasks, std::slice::from_ref(&bad.task_id));
    tasks::cancel(client, &waits.name).await?;
    worker.report_cancelled(&bad);
    let assign = worker.take().await?;
    assert_eq!(assign.task_id, next.uid);
    worker.succeed(&assign, 0, "done");
    other.succeed(&again, 0, "done");
    assert!(worker.result_ack().await? && other.result_ack().await?);
    // A confirmation that was expected is not a late result.
    for task in [&waits.name, &next.name] {
        assert!(tasks::notices(&tasks::log(client, task).await?).is_empty());
    }
    tasks::ended(client, &waits.name).await?;
    history::check(client, true).await?.check()
}
