//! What the control plane tells a connected worker.

use std::time::Duration;

use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{FailureClass, TaskInput, event, runtime};
use rota_proto::worker::v1::session_request::Kind as Said;
use rota_proto::worker::v1::session_response::Kind as Told;
use rota_proto::worker::v1::{Cancel, Drain, Input, ReportAck, ResultAck, result};
use rota_worker::Error;
use tonic::{Code, Status};

use crate::fake::{Plane, Session, Worker, assign, forever, limits, say, script};
use crate::support::until;

async fn one() -> (Plane, Worker, Session) {
    let mut plane = Plane::start().await;
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
async fn accept_then_events_then_result_and_a_slot_is_free_again() {
    let mut plane = Plane::start().await;
    let _worker = Worker::start_with(&plane, |options| options.slots = 1);
    let mut session = plane.welcomed().await;
    for fence in 1..4 {
        session
            .send(Told::Assign(assign(fence, script([say("a"), say("b"), Step::Succeed("c".into())]))))
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
async fn hello_says_who_it_is_and_heartbeats_come() {
    let mut plane = Plane::start().await;
    let _worker = Worker::start_with(&plane, |options| {
        options.token = Some("secret-token".to_owned().into());
        options.capabilities = vec!["rust".to_owned()];
    });
    let mut session = plane.welcomed().await;
    assert_eq!(session.authorization.as_deref(), Some("Bearer secret-token"));
    let hello = &session.hello;
    assert_eq!((hello.protocol_version, hello.slots, hello.worker.as_str()), (1, 16, "w"));
    assert_eq!(hello.capabilities, ["rust"]);
    session.heartbeat().await;
    session.heartbeat().await;
}

#[tokio::test]
async fn a_repeated_assignment_is_run_once() {
    let (_plane, _worker, mut session) = one().await;
    let task = assign(1, script([say("x"), forever()]));
    session.send(Told::Assign(task.clone())).await;
    session.send(Told::Assign(task)).await;
    session.send(Told::Assign(assign(2, script([])))).await;
    session.accepted(1).await;
    let (mut said, mut ended) = (0, 0);
    while (said, ended) != (1, 1) {
        match session.next().await.unwrap() {
            Said::Report(report) => said += report.events.len(),
            Said::Result(_) => ended += 1,
            Said::Accept(accept) => assert_eq!(accept.fence, 2),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_taken_is_rejected() {
    let mut plane = Plane::start().await;
    let _worker = Worker::start_with(&plane, |options| options.slots = 1);
    let mut session = plane.welcomed().await;
    session.send(Told::Assign(assign(1, script([forever()])))).await;
    session.accepted(1).await;
    session.send(Told::Assign(assign(2, script([])))).await;
    assert!(session.rejected().await.contains("slot"));
    session.send(Told::Drain(Drain::default())).await;
    assert!(matches!(session.next().await, Some(Said::Draining(_))));
    session.send(Told::Assign(assign(3, script([])))).await;
    assert!(session.rejected().await.contains("nothing new"));

    let (_plane, _worker, mut session) = one().await;
    session.send(Told::Assign(assign(4, runtime::Kind::External(Default::default())))).await;
    assert!(session.rejected().await.contains("runtime"));
    let mut way_out = assign(5, script([]));
    way_out.task_id = "../../etc".to_owned();
    session.send(Told::Assign(way_out)).await;
    assert!(session.rejected().await.contains("path"));
}

#[tokio::test]
async fn a_cancelled_one_says_so() {
    let (_plane, _worker, mut session) = one().await;
    session.send(Told::Assign(assign(1, script([forever()])))).await;
    session.accepted(1).await;
    session.send(Told::Cancel(Cancel { task_id: "t1".to_owned(), fence: 1, ..Cancel::default() })).await;
    let (_, result) = session.result().await;
    assert!(matches!(result.kind, Some(result::Kind::Cancelled(_))));
}

#[tokio::test]
async fn a_stale_one_says_only_that_it_has_ended() {
    let mut plane = Plane::start().await;
    let _worker = Worker::start_with(&plane, |options| options.slots = 1);
    let mut session = plane.welcomed().await;
    session.send(Told::Assign(assign(1, script([say("x"), forever()])))).await;
    session.accepted(1).await;
    session.report().await;
    let ack = ReportAck { task_id: "t1".to_owned(), fence: 1, attempt_seq: 1, stale: true };
    session.send(Told::ReportAck(ack)).await;
    let (events, result) = session.result().await;
    assert!(events.is_empty() && matches!(result.kind, Some(result::Kind::Cancelled(_))));
    // From then on its slot is free.
    session.send(Told::Assign(assign(2, script([])))).await;
    session.accepted(2).await;
    assert_eq!(session.result().await.1.fence, 2);
}

#[tokio::test]
async fn the_end_of_one_that_it_does_not_have_is_answered() {
    let (_plane, _worker, mut session) = one().await;
    session.send(Told::Cancel(Cancel { task_id: "t1".to_owned(), fence: 1, ..Cancel::default() })).await;
    assert!(session.rejected().await.contains("does not have it"));
}

#[tokio::test]
async fn an_input_is_given_once() {
    let (_plane, _worker, mut session) = one().await;
    session.send(Told::Assign(assign(1, script([Step::Ask("?".into()), Step::Ask("??".into())])))).await;
    session.accepted(1).await;
    for seq in 1..3 {
        let report = session.report().await;
        let Some(event::Kind::InputRequest(asked)) = &report.events[0].kind else { panic!("{report:?}") };
        let input = TaskInput { request_id: asked.request_id.clone(), ..TaskInput::default() };
        let input =
            |input_seq| Input { task_id: "t1".to_owned(), fence: 1, input_seq, input: Some(input.clone()) };
        // One that was given before is not given again, whatever is in it now.
        session.send(Told::Input(input(seq - 1))).await;
        session.send(Told::Input(input(seq))).await;
        session.send(Told::Input(input(seq))).await;
    }
    assert!(matches!(session.result().await.1.kind, Some(result::Kind::Succeeded(_))));
}

#[tokio::test]
async fn the_deadline_and_the_silence_timeout_end_it() {
    let (_plane, _worker, mut session) = one().await;
    let mut late = assign(1, script([forever()]));
    late.deadline = Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 });
    session.send(Told::Assign(late.clone())).await;
    // It came to a worker that was frozen for so long: nothing of it is run.
    assert!(session.rejected().await.contains("deadline"));
    let soon = rota_telemetry::clock::unix_micros() / 1_000_000 + 2;
    late.deadline = Some(pbjson_types::Timestamp { seconds: soon, nanos: 0 });
    session.send(Told::Assign(late)).await;
    session.accepted(1).await;
    assert_eq!(class(&session.result().await.1), Some(FailureClass::Timeout));

    let mut silent = assign(2, script([say("x"), forever()]));
    limits(&mut silent).silence_timeout = Some(Duration::from_millis(50).into());
    session.send(Told::Assign(silent)).await;
    session.accepted(2).await;
    assert_eq!(class(&session.result().await.1), Some(FailureClass::Hang));
}

#[tokio::test]
async fn one_that_waits_for_a_person_is_not_silent() {
    let (_plane, _worker, mut session) = one().await;
    let silence = |assign: &mut _| limits(assign).silence_timeout = Some(Duration::from_millis(100).into());
    let mut asking = assign(1, script([Step::Ask("?".into())]));
    silence(&mut asking);
    session.send(Told::Assign(asking)).await;
    session.accepted(1).await;
    session.report().await;
    // Another one falls silent after it, and is ended; the first is not.
    let mut silent = assign(2, script([forever()]));
    silence(&mut silent);
    session.send(Told::Assign(silent)).await;
    session.accepted(2).await;
    assert_eq!(session.result().await.1.fence, 2);
}

#[tokio::test]
async fn a_drained_one_finishes_and_ends() {
    let (mut plane, worker, mut session) = one().await;
    session.send(Told::Assign(assign(1, script([Step::Ask("?".into())])))).await;
    session.accepted(1).await;
    let report = session.report().await;
    worker.shutdown.cancel();
    assert!(matches!(session.next().await, Some(Said::Draining(_))));
    // Also a lost session does not end it before its work is done and known.
    drop(session);
    let mut session = plane.session().await;
    assert!(session.hello.draining);
    session.welcome(|_| {}).await;
    let Some(event::Kind::InputRequest(asked)) = &report.events[0].kind else { panic!("{report:?}") };
    let input = Some(TaskInput { request_id: asked.request_id.clone(), ..TaskInput::default() });
    session.send(Told::Input(Input { task_id: "t1".to_owned(), fence: 1, input_seq: 1, input })).await;
    session.result().await;
    session.send(Told::ResultAck(ResultAck { task_id: "t1".to_owned(), fence: 1, accepted: true })).await;
    assert!(session.next().await.is_none());
    drop(session);
    worker.ended().await.unwrap();
}

#[tokio::test]
async fn stop_now_ends_what_runs() {
    let (_plane, worker, mut session) = one().await;
    session.send(Told::Assign(assign(1, script([forever()])))).await;
    session.accepted(1).await;
    worker.stop_now.cancel();
    assert!(matches!(session.next().await, Some(Said::Draining(_))));
    let (_, result) = session.result().await;
    assert_eq!(class(&result), Some(FailureClass::WorkerLost));
    session.send(Told::ResultAck(ResultAck { task_id: "t1".to_owned(), fence: 1, accepted: true })).await;
    assert!(session.next().await.is_none());
    drop(session);
    worker.ended().await.unwrap();
}

#[tokio::test]
async fn a_refused_worker_ends_and_says_why() {
    for code in [Code::FailedPrecondition, Code::InvalidArgument, Code::Unauthenticated] {
        let mut plane = Plane::start().await;
        let worker = Worker::start(&plane);
        let session = plane.session().await;
        session.fail(Status::new(code, "no such agent")).await;
        match worker.ended().await {
            Err(Error::Refused { code: told, message }) => {
                assert_eq!((told, message.as_str()), (code, "no such agent"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn leftovers_of_an_earlier_process_are_swept() {
    let mut plane = Plane::start().await;
    let worker = Worker::start(&plane);
    let session = plane.session().await;
    let leftover = worker.state.path().join("attempts/w/t0.1/scratch");
    std::fs::create_dir_all(&leftover).unwrap();
    session.welcome(|_| {}).await;
    until("swept", || (!leftover.exists()).then_some(())).await;
}
