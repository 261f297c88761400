//! Lost connections: reconnect, resume, orphans.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use rota_proto::reasons::TOKEN_REVOKED;
use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{CommandRuntime, Event, FailureClass, OnDisconnect, TaskInput, event, runtime};
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Input, ReportAck, ResultAck, ResumeAttempt, Welcome, result, resume_attempt};
use rota_worker::Error;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::control_plane::{FakeControlPlane, Worker, assign, endless, message, script};
use crate::session::{class, refusal};
use crate::support::{is_alive, is_frozen, pid_in, until};

fn resume(fence: i64, kind: resume_attempt::Kind) -> Vec<ResumeAttempt> {
    vec![ResumeAttempt { task_id: format!("t{fence}"), fence, kind: Some(kind) }]
}

fn text(event: &Event) -> &str {
    match &event.kind {
        Some(event::Kind::Message(message)) => &message.text,
        other => panic!("{other:?}"),
    }
}

/// A program that runs until it is killed, and the file that will contain its process id.
fn sleeper(worker: &Worker) -> (runtime::Kind, PathBuf) {
    let file = worker.state.path().join("pid");
    let shell = format!("echo $$ > {}; while :; do sleep 1000; done", file.display());
    (runtime::Kind::Command(CommandRuntime { shell, ..CommandRuntime::default() }), file)
}

#[tokio::test]
async fn unacknowledged_messages_are_sent_again() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let steps = [message("1"), message("2"), message("3"), Step::Ask("?".into())];
    session.send(ToWorker::Assign(Box::new(assign(1, script(steps))))).await;
    session.accepted(1).await;
    let mut events = Vec::new();
    while events.len() < 4 {
        events.extend(session.report().await.events);
    }
    session
        .send(ToWorker::ReportAck(ReportAck {
            task_id: "t1".to_owned(),
            fence: 1,
            attempt_seq: 1,
            stale: false,
        }))
        .await;
    drop(session);

    let mut session = plane.session().await;
    let running = &session.hello.running;
    assert_eq!((running.len(), running[0].fence, running[0].last_attempt_seq), (1, 1, 4));
    session.welcome(|welcome| welcome.resume = resume(1, resume_attempt::Kind::ContinueAfter(2))).await;
    let report = session.report().await;
    assert_eq!((report.first_attempt_seq, report.events.len()), (3, 2));
    assert_eq!(text(&report.events[0]), "3");
    let Some(event::Kind::InputRequest(asked)) = &report.events[1].kind else { panic!("{report:?}") };
    let input = Some(TaskInput { request_id: asked.request_id.clone(), ..TaskInput::default() });
    session
        .send(ToWorker::Input(Input { task_id: "t1".to_owned(), fence: 1, input_seq: 1, input }.into()))
        .await;
    let (events, result) = session.result().await;
    assert!(events.is_empty());
    assert_eq!(result.last_attempt_seq, 4);
    drop(session);

    // Nor was the result acknowledged.
    let mut session = plane.session().await;
    assert_eq!(session.hello.running[0].last_input_seq, 1);
    session.welcome(|welcome| welcome.resume = resume(1, resume_attempt::Kind::ContinueAfter(4))).await;
    let (events, _) = session.result().await;
    assert!(events.is_empty());
    session.send(ToWorker::ResultAck(ResultAck { task_id: "t1".to_owned(), fence: 1, accepted: true })).await;
    session.send(ToWorker::Assign(Box::new(assign(2, script([]))))).await;
    session.accepted(2).await;
    session.result().await;
    drop(session);
    let session = plane.session().await;
    assert_eq!(session.hello.running.iter().map(|r| r.fence).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn result_of_disconnected_attempt_is_delivered() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    session
        .send(ToWorker::Assign(Box::new(assign(
            1,
            script([Step::Delay(Duration::from_millis(50).into()), message("x")]),
        ))))
        .await;
    session.accepted(1).await;
    plane.refuse(Some(Status::unavailable("restarting")));
    drop(session);
    plane.refused(2).await;
    plane.refuse(None);
    let mut session = plane.welcomed().await;
    let (events, result) = session.result().await;
    assert_eq!(events.len(), 1);
    assert!(matches!(result.kind, Some(result::Kind::Succeeded(_))));
}

#[tokio::test]
async fn abandoned_attempt_ends_and_is_forgotten() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start_with(&plane, |options| options.slots = 1);
    let mut session = plane.welcomed().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([endless()]))))).await;
    session.accepted(1).await;
    drop(session);
    let mut session = plane.session().await;
    let abandon = resume_attempt::Kind::Abandon("it runs elsewhere".to_owned());
    session.welcome(|welcome| welcome.resume = resume(1, abandon)).await;
    let (events, result) = session.result().await;
    assert!(events.is_empty() && matches!(result.kind, Some(result::Kind::Cancelled(_))));
    session
        .send(ToWorker::ResultAck(ResultAck { task_id: "t1".to_owned(), fence: 1, accepted: false }))
        .await;
    session.send(ToWorker::Assign(Box::new(assign(2, script([]))))).await;
    session.accepted(2).await;
    session.result().await;
    drop(session);
    let running = plane.session().await.hello.running;
    assert!(running.len() == 1 && running[0].fence == 2, "{running:?}");
}

#[tokio::test]
async fn silent_connection_is_replaced() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let session = plane.session().await;
    session.welcome(|welcome| welcome.heartbeat_timeout = Some(Duration::from_millis(100).into())).await;
    // The call stays open without a message.
    plane.session().await;
}

#[tokio::test]
async fn orphan_ends_attempts_and_keeps_results() {
    let mut plane = FakeControlPlane::start().await;
    let worker = Worker::start_with(&plane, |options| options.orphan_timeout = Duration::from_millis(100));
    let mut session = plane.welcomed().await;
    let (command, file) = sleeper(&worker);
    session.send(ToWorker::Assign(Box::new(assign(1, command)))).await;
    session.accepted(1).await;
    let pid = pid_in(&file).await;
    plane.refuse(Some(Status::unavailable("stopped")));
    drop(session);
    until("ended", || (!is_alive(pid)).then_some(())).await;
    plane.refuse(None);
    let mut session = plane.welcomed().await;
    let (_, result) = session.result().await;
    assert_eq!(class(&result), Some(FailureClass::WorkerLost));
}

#[tokio::test]
async fn disconnected_worker_stops_by_policy() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let short = |welcome: &mut Welcome| {
        welcome.reconnect_grace = Some(Duration::from_millis(10).into());
        welcome.on_disconnect = OnDisconnect::Stop.into();
    };
    let mut session = plane.session().await;
    session.welcome(short).await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([endless()]))))).await;
    session.accepted(1).await;
    drop(session);
    // Every session is dropped until the reconnect grace has expired once.
    let result = loop {
        let mut session = plane.session().await;
        session.welcome(short).await;
        session.send(ToWorker::Assign(Box::new(assign(2, script([]))))).await;
        let mut found = None;
        while let Some(message) = session.next().await {
            match message {
                FromWorker::Result(result) if result.fence == 1 => found = Some(result),
                FromWorker::Result(_) => break,
                _ => {}
            }
        }
        if let Some(result) = found {
            break result;
        }
    };
    assert_eq!(class(&result), Some(FailureClass::WorkerLost));
}

#[tokio::test]
async fn paused_attempt_is_thawed_on_reconnect() {
    let mut plane = FakeControlPlane::start().await;
    let worker = Worker::start(&plane);
    let mut session = plane.session().await;
    session
        .welcome(|welcome| {
            welcome.reconnect_grace = Some(Duration::from_millis(10).into());
            welcome.on_disconnect = OnDisconnect::Pause.into();
        })
        .await;
    let (command, file) = sleeper(&worker);
    session.send(ToWorker::Assign(Box::new(assign(1, command)))).await;
    session.accepted(1).await;
    let pid = pid_in(&file).await;
    plane.refuse(Some(Status::unavailable("stopped")));
    drop(session);
    until("frozen", || is_frozen(pid).then_some(())).await;
    plane.refuse(None);
    let _session = plane.welcomed().await;
    until("thawed", || (!is_frozen(pid)).then_some(())).await;
    worker.stop_now.cancel();
    until("ended", || (!is_alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn refusals_after_a_session_are_outages() {
    let refusals = [
        Status::unauthenticated("no keys yet"),
        Status::permission_denied("RBAC: access denied"),
        refusal(Code::FailedPrecondition, "unsupported protocol version"),
        refusal(Code::PermissionDenied, "role worker is required"),
    ];
    for status in refusals {
        let mut plane = FakeControlPlane::start().await;
        let _worker = Worker::start(&plane);
        let mut session = plane.welcomed().await;
        session.send(ToWorker::Assign(Box::new(assign(1, script([endless()]))))).await;
        session.accepted(1).await;
        plane.refuse(Some(status));
        session.fail(Status::unavailable("restarting")).await;
        drop(session);
        plane.refused(2).await;
        plane.refuse(None);
        assert_eq!(plane.session().await.hello.running.len(), 1);
    }
}

#[tokio::test]
async fn worker_of_a_revoked_token_ends() {
    let mut plane = FakeControlPlane::start().await;
    let worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([endless()]))))).await;
    session.accepted(1).await;
    let revoked = || {
        let details = ErrorDetails::with_error_info(TOKEN_REVOKED, "rota.dev", HashMap::new());
        Status::with_error_details(Code::Unauthenticated, "the worker's token was revoked", details)
    };
    plane.refuse(Some(revoked()));
    session.fail(revoked()).await;
    drop(session);
    let ended = worker.ended().await;
    assert!(matches!(ended, Err(Error::Revoked(_))), "{ended:?}");
}

#[tokio::test]
async fn refused_worker_gives_up_after_the_orphan_timeout() {
    let mut plane = FakeControlPlane::start().await;
    let worker = Worker::start_with(&plane, |options| options.orphan_timeout = Duration::from_millis(100));
    let session = plane.welcomed().await;
    plane.refuse(Some(Status::permission_denied("RBAC: access denied")));
    drop(session);
    let ended = worker.ended().await;
    assert!(matches!(ended, Err(Error::Refused { code: Code::PermissionDenied, .. })), "{ended:?}");
}

#[tokio::test]
async fn refusal_of_a_proxy_does_not_end_a_new_worker() {
    let mut plane = FakeControlPlane::start().await;
    plane.refuse(Some(Status::permission_denied("RBAC: access denied")));
    let _worker = Worker::start(&plane);
    plane.refused(2).await;
    plane.refuse(None);
    plane.welcomed().await;
}
