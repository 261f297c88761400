//! Messages of the control plane to a connected worker.

use std::collections::HashMap;
use std::time::Duration;

use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{CommandRuntime, FailureClass, TaskInput, Workspace, WorkspaceMode, event, runtime};
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Cancel, Drain, Input, ReportAck, ResultAck, result};
use rota_worker::Error;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::control_plane::{FakeControlPlane, Session, Worker, assign, endless, limits, message, script};
use crate::support::until;

async fn one() -> (FakeControlPlane, Worker, Session) {
    let mut plane = FakeControlPlane::start().await;
    let worker = Worker::start(&plane);
    let session = plane.welcomed().await;
    (plane, worker, session)
}

pub(crate) fn class(result: &rota_proto::worker::v1::Result) -> Option<FailureClass> {
    match &result.kind {
        Some(result::Kind::Failed(failed)) => Some(failed.class()),
        _ => None,
    }
}

#[tokio::test]
async fn slot_is_free_after_the_result() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start_with(&plane, |options| options.slots = 1);
    let mut session = plane.welcomed().await;
    for fence in 1..4 {
        session
            .send(ToWorker::Assign(Box::new(assign(
                fence,
                script([message("a"), message("b"), Step::Succeed("c".into())]),
            ))))
            .await;
        session.accepted(fence).await;
        let (events, result) = session.result().await;
        assert_eq!(events.len(), 2);
        assert!(events.iter().all(|event| event.attempt == 1 && event.time.is_some()));
        assert_eq!((result.fence, result.last_attempt_seq), (fence, 2));
        assert!(matches!(result.kind, Some(result::Kind::Succeeded(result)) if result.text == "c"));
    }
}

#[tokio::test]
async fn hello_and_heartbeats_are_sent() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start_with(&plane, |options| {
        options.token = Some("secret-token".to_owned().into());
        options.capabilities = vec!["rust".to_owned()];
    });
    let mut session = plane.welcomed().await;
    assert_eq!(session.authorization.as_deref(), Some("Bearer secret-token"));
    let hello = &session.hello;
    assert_eq!((hello.protocol_version, hello.slots, hello.worker.as_str()), (2, 16, "w"));
    assert_eq!(hello.capabilities, ["rust"]);
    session.heartbeat().await;
    session.heartbeat().await;
}

#[tokio::test]
async fn repeated_assignment_runs_once() {
    let (_plane, _worker, mut session) = one().await;
    let task = assign(1, script([message("x"), endless()]));
    session.send(ToWorker::Assign(Box::new(task.clone()))).await;
    session.send(ToWorker::Assign(Box::new(task))).await;
    session.send(ToWorker::Assign(Box::new(assign(2, script([]))))).await;
    session.accepted(1).await;
    let (mut events, mut ended) = (0, 0);
    while (events, ended) != (1, 1) {
        match session.next().await.unwrap() {
            FromWorker::Report(report) => events += report.events.len(),
            FromWorker::Result(_) => ended += 1,
            FromWorker::Accept(accept) => assert_eq!(accept.fence, 2),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn unsuitable_assignments_are_rejected() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start_with(&plane, |options| options.slots = 1);
    let mut session = plane.welcomed().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([endless()]))))).await;
    session.accepted(1).await;
    session.send(ToWorker::Assign(Box::new(assign(2, script([]))))).await;
    assert!(session.rejected().await.contains("slot"));
    session.send(ToWorker::Drain(Drain::default())).await;
    assert!(matches!(session.next().await, Some(FromWorker::Draining(_))));
    session.send(ToWorker::Assign(Box::new(assign(3, script([]))))).await;
    assert!(session.rejected().await.contains("nothing new"));

    let (_plane, _worker, mut session) = one().await;
    session.send(ToWorker::Assign(Box::new(assign(4, runtime::Kind::External(Default::default()))))).await;
    assert!(session.rejected().await.contains("runtime"));
    let mut way_out = assign(5, script([]));
    way_out.task_id = "../../etc".to_owned();
    session.send(ToWorker::Assign(Box::new(way_out))).await;
    assert!(session.rejected().await.contains("path"));
}

#[tokio::test]
async fn unusable_state_directory_rejects_programs() {
    let (_plane, worker, mut session) = one().await;
    let program = |fence| {
        let command = CommandRuntime { shell: "true".to_owned(), ..CommandRuntime::default() };
        ToWorker::Assign(Box::new(assign(fence, runtime::Kind::Command(command))))
    };
    session.send(program(1)).await;
    session.accepted(1).await;
    let (_, result) = session.result().await;
    session.send(ToWorker::ResultAck(ResultAck { task_id: "t1".to_owned(), fence: 1, accepted: true })).await;
    assert!(matches!(result.kind, Some(result::Kind::Succeeded(_))), "{result:?}");

    let state = worker.state.path();
    let away = state.with_extension("away");
    std::fs::rename(state, &away).unwrap();
    session.send(program(2)).await;
    let status = session.next().await.unwrap();
    assert!(
        matches!(&status, FromWorker::Status(status) if status.not_ready_reason.contains("No such file")),
        "{status:?}"
    );
    assert!(session.rejected().await.contains("No such file"));
    // Needs nothing of the machine.
    session.send(ToWorker::Assign(Box::new(assign(3, script([]))))).await;
    session.accepted(3).await;
    session.result().await;

    std::fs::rename(&away, state).unwrap();
    session.send(program(4)).await;
    let status = session.next().await.unwrap();
    assert!(
        matches!(&status, FromWorker::Status(status) if status.not_ready_reason.is_empty()),
        "{status:?}"
    );
    session.accepted(4).await;
}

#[tokio::test]
async fn waiting_for_a_kept_workspace_is_reported() {
    let (_plane, worker, mut session) = one().await;
    let gate = worker.state.path().join("gate");
    let program = |fence, line: &str| {
        let command = CommandRuntime { shell: line.to_owned(), ..CommandRuntime::default() };
        let mut task = assign(fence, runtime::Kind::Command(command));
        let workspace =
            Workspace { mode: WorkspaceMode::Keep.into(), path: "thread".to_owned(), ..Workspace::default() };
        task.spec.get_or_insert_default().workspace = Some(workspace);
        ToWorker::Assign(Box::new(task))
    };
    session
        .send(program(1, &format!("echo here; until [ -e {} ]; do sleep 0.02; done", gate.display())))
        .await;
    session.accepted(1).await;
    assert!(matches!(session.next().await, Some(FromWorker::Report(report)) if report.fence == 1));
    session.send(program(2, "true")).await;
    session.accepted(2).await;
    let Some(FromWorker::Report(report)) = session.next().await else { panic!("no report") };
    let notice = report.events.into_iter().find_map(|event| match event.kind {
        Some(event::Kind::Notice(notice)) => Some(notice),
        _ => None,
    });
    assert_eq!((report.fence, notice.unwrap().code.as_str()), (2, "workspace_busy"));
    std::fs::write(gate, "").unwrap();
    let (mut ended, mut is_free) = (Vec::new(), false);
    while ended.len() < 2 {
        match session.next().await {
            Some(FromWorker::Result(result)) => {
                assert!(matches!(result.kind, Some(result::Kind::Succeeded(_))), "{result:?}");
                ended.push(result.fence);
            }
            // By which its time counts again.
            Some(FromWorker::Report(report)) if report.fence == 2 => {
                is_free |= report.events.iter().any(|event| {
                    matches!(&event.kind, Some(event::Kind::Notice(notice)) if notice.code == "workspace_free")
                });
            }
            _ => {}
        }
    }
    assert_eq!((ended, is_free), (vec![1, 2], true));
}

#[tokio::test]
async fn cancelled_attempt_reports_cancellation() {
    let (_plane, _worker, mut session) = one().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([endless()]))))).await;
    session.accepted(1).await;
    session
        .send(ToWorker::Cancel(Cancel { task_id: "t1".to_owned(), fence: 1, ..Cancel::default() }.into()))
        .await;
    let (_, result) = session.result().await;
    assert!(matches!(result.kind, Some(result::Kind::Cancelled(_))));
}

#[tokio::test]
async fn stale_attempt_reports_only_its_end() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start_with(&plane, |options| options.slots = 1);
    let mut session = plane.welcomed().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([message("x"), endless()]))))).await;
    session.accepted(1).await;
    session.report().await;
    let ack = ReportAck { task_id: "t1".to_owned(), fence: 1, attempt_seq: 1, stale: true };
    session.send(ToWorker::ReportAck(ack)).await;
    let (events, result) = session.result().await;
    assert!(events.is_empty() && matches!(result.kind, Some(result::Kind::Cancelled(_))));
    // Its slot is free from then on.
    session.send(ToWorker::Assign(Box::new(assign(2, script([]))))).await;
    session.accepted(2).await;
    assert_eq!(session.result().await.1.fence, 2);
}

#[tokio::test]
async fn cancel_of_unknown_attempt_is_rejected() {
    let (_plane, _worker, mut session) = one().await;
    session
        .send(ToWorker::Cancel(Cancel { task_id: "t1".to_owned(), fence: 1, ..Cancel::default() }.into()))
        .await;
    assert!(session.rejected().await.contains("does not have the attempt"));
}

#[tokio::test]
async fn repeated_input_is_ignored() {
    let (_plane, _worker, mut session) = one().await;
    session
        .send(ToWorker::Assign(Box::new(assign(1, script([Step::Ask("?".into()), Step::Ask("??".into())])))))
        .await;
    session.accepted(1).await;
    for seq in 1..3 {
        let report = session.report().await;
        let Some(event::Kind::InputRequest(asked)) = &report.events[0].kind else { panic!("{report:?}") };
        let input = TaskInput { request_id: asked.request_id.clone(), ..TaskInput::default() };
        let input =
            |input_seq| Input { task_id: "t1".to_owned(), fence: 1, input_seq, input: Some(input.clone()) };
        // An earlier sequence number is ignored, whatever its contents.
        session.send(ToWorker::Input(input(seq - 1).into())).await;
        session.send(ToWorker::Input(input(seq).into())).await;
        session.send(ToWorker::Input(input(seq).into())).await;
    }
    assert!(matches!(session.result().await.1.kind, Some(result::Kind::Succeeded(_))));
}

#[tokio::test]
async fn deadline_and_silence_timeout_are_enforced() {
    let (_plane, _worker, mut session) = one().await;
    let mut late = assign(1, script([endless()]));
    late.deadline = Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 });
    session.send(ToWorker::Assign(Box::new(late.clone()))).await;
    // As if the worker had been frozen: the attempt is not started.
    assert!(session.rejected().await.contains("no time left"));
    let soon = rota_telemetry::clock::unix_micros() / 1_000_000 + 10;
    late.deadline = Some(pbjson_types::Timestamp { seconds: soon, nanos: 0 });
    session.send(ToWorker::Assign(Box::new(late))).await;
    session.accepted(1).await;
    assert_eq!(class(&session.result().await.1), Some(FailureClass::Timeout));

    // Since version 2 a duration, which takes precedence: clocks may differ by hours.
    let mut timed = assign(3, script([endless()]));
    timed.deadline = Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 });
    timed.time_left = Some(Duration::ZERO.into());
    session.send(ToWorker::Assign(Box::new(timed.clone()))).await;
    assert!(session.rejected().await.contains("no time left"));
    timed.time_left = Some(Duration::from_secs(2).into());
    session.send(ToWorker::Assign(Box::new(timed))).await;
    session.accepted(3).await;
    assert_eq!(class(&session.result().await.1), Some(FailureClass::Timeout));

    let mut silent = assign(2, script([message("x"), endless()]));
    limits(&mut silent).silence_timeout = Some(Duration::from_millis(50).into());
    session.send(ToWorker::Assign(Box::new(silent))).await;
    session.accepted(2).await;
    assert_eq!(class(&session.result().await.1), Some(FailureClass::Hang));
}

#[tokio::test]
async fn waiting_for_input_is_not_silence() {
    let (_plane, _worker, mut session) = one().await;
    let silence = |assign: &mut _| limits(assign).silence_timeout = Some(Duration::from_secs(2).into());
    let mut asking = assign(1, script([Step::Ask("?".into())]));
    silence(&mut asking);
    session.send(ToWorker::Assign(Box::new(asking))).await;
    session.accepted(1).await;
    session.report().await;
    // Another attempt becomes silent later and is ended; the first one is not.
    let mut silent = assign(2, script([endless()]));
    silence(&mut silent);
    session.send(ToWorker::Assign(Box::new(silent))).await;
    session.accepted(2).await;
    assert_eq!(session.result().await.1.fence, 2);
}

#[tokio::test]
async fn drained_worker_finishes_its_attempts() {
    let (mut plane, worker, mut session) = one().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([Step::Ask("?".into())]))))).await;
    session.accepted(1).await;
    let report = session.report().await;
    worker.shutdown.cancel();
    assert!(matches!(session.next().await, Some(FromWorker::Draining(_))));
    // Even after a lost session it stays until its result is acknowledged.
    drop(session);
    let mut session = plane.session().await;
    assert!(session.hello.draining);
    session.welcome(|_| {}).await;
    let Some(event::Kind::InputRequest(asked)) = &report.events[0].kind else { panic!("{report:?}") };
    let input = Some(TaskInput { request_id: asked.request_id.clone(), ..TaskInput::default() });
    session
        .send(ToWorker::Input(Input { task_id: "t1".to_owned(), fence: 1, input_seq: 1, input }.into()))
        .await;
    session.result().await;
    session.send(ToWorker::ResultAck(ResultAck { task_id: "t1".to_owned(), fence: 1, accepted: true })).await;
    assert!(session.next().await.is_none());
    drop(session);
    worker.ended().await.unwrap();
}

#[tokio::test]
async fn forced_shutdown_ends_attempts() {
    let (_plane, worker, mut session) = one().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([endless()]))))).await;
    session.accepted(1).await;
    worker.stop_now.cancel();
    assert!(matches!(session.next().await, Some(FromWorker::Draining(_))));
    let (_, result) = session.result().await;
    assert_eq!(class(&result), Some(FailureClass::WorkerLost));
    session.send(ToWorker::ResultAck(ResultAck { task_id: "t1".to_owned(), fence: 1, accepted: true })).await;
    assert!(session.next().await.is_none());
    drop(session);
    worker.ended().await.unwrap();
}

/// A refusal by the control plane itself.
pub(crate) fn refusal(code: Code, message: &str) -> Status {
    let details = ErrorDetails::with_error_info("PROTOCOL_VIOLATION", "rota.dev", HashMap::new());
    Status::with_error_details(code, message, details)
}

/// A control plane that was not upgraded yet, by its name of the reason or today's.
#[tokio::test]
async fn earlier_protocol_version_is_used_where_needed() {
    for reason in ["PROTOCOL_VERSION", "PROTOCOL_VERSION_UNSUPPORTED"] {
        let mut plane = FakeControlPlane::start().await;
        let worker = Worker::start(&plane);
        for _ in 0..2 {
            let newest = plane.session().await;
            assert_eq!(newest.hello.protocol_version, 2);
            let details = ErrorDetails::with_error_info(reason, "rota.dev", HashMap::new());
            newest.fail(Status::with_error_details(Code::FailedPrecondition, "version 2", details)).await;
            // The next session begins with the newest again: the control plane may have been upgraded.
            let earlier = plane.welcomed().await;
            assert_eq!(earlier.hello.protocol_version, 1);
            earlier.fail(Status::unavailable("restarting")).await;
        }
        drop(worker);
    }
}

#[tokio::test]
async fn refused_worker_ends_with_the_reason() {
    for code in [Code::FailedPrecondition, Code::InvalidArgument, Code::Unauthenticated] {
        let mut plane = FakeControlPlane::start().await;
        let worker = Worker::start(&plane);
        let session = plane.session().await;
        session.fail(refusal(code, "no such agent")).await;
        match worker.ended().await {
            Err(Error::Refused { code: refused, message }) => {
                assert_eq!((refused, message.as_str()), (code, "no such agent"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn leftovers_of_earlier_process_are_removed() {
    let mut plane = FakeControlPlane::start().await;
    let worker = Worker::start(&plane);
    let session = plane.session().await;
    let leftover = worker.state.path().join("running/default/w/t0.1/scratch");
    std::fs::create_dir_all(&leftover).unwrap();
    session.welcome(|_| {}).await;
    until("swept", || (!leftover.exists()).then_some(())).await;
}
