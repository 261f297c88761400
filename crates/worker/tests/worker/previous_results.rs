//! Results of dependencies that an assignment omits.

use rota_proto::v1::{CommandRuntime, Event, Failure, FailureClass, event, runtime};
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Assign, PreviousResult, Result as AttemptResult, result};
use rota_telemetry::clock;
use tonic::Status;

use crate::control_plane::{FakeControlPlane, Worker, assign};

/// Runs an attempt that needs an omitted result.
async fn run(plane: &mut FakeControlPlane, change: impl FnOnce(&mut Assign)) -> (Vec<Event>, AttemptResult) {
    let _worker = Worker::start(plane);
    let mut session = plane.welcomed().await;
    let shell = r#"grep -o 'before for t1, fence 1' $ROTA_CONTEXT/previous_results.json"#.to_owned();
    let mut task = assign(1, runtime::Kind::Command(CommandRuntime { shell, ..CommandRuntime::default() }));
    let omitted = PreviousResult { task_id: "before".to_owned(), omitted: true, ..PreviousResult::default() };
    task.previous = vec![PreviousResult::default(), omitted];
    change(&mut task);
    session.send(ToWorker::Assign(Box::new(task))).await;
    session.accepted(1).await;
    session.result().await
}

fn failed(result: AttemptResult) -> Failure {
    match result.kind {
        Some(result::Kind::Failed(failure)) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

fn notices(events: &[Event]) -> Vec<&str> {
    let kinds = events.iter().filter_map(|event| event.kind.as_ref());
    kinds
        .filter_map(|kind| match kind {
            event::Kind::Notice(notice) if notice.code == "previous_result_retry" => {
                Some(notice.message.as_str())
            }
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn omitted_results_are_fetched() {
    let mut plane = FakeControlPlane::start().await;
    plane.fail_results([Status::unavailable("restarting"), Status::internal("a reset stream")]);
    let (events, result) = run(&mut plane, |_| {}).await;
    match result.kind {
        Some(result::Kind::Succeeded(result)) => assert_eq!(result.text.trim(), "before for t1, fence 1"),
        other => panic!("{other:?}"),
    }
    // One notice, whatever the number of retries.
    assert!(matches!(notices(&events)[..], [one] if one.contains("restarting")), "{events:?}");
}

#[tokio::test]
async fn lasting_refusal_fails_the_attempt() {
    let mut plane = FakeControlPlane::start().await;
    plane.fail_results([Status::unavailable("restarting")]);
    plane.refuse_results(Status::permission_denied("no such worker"));
    let (events, result) = run(&mut plane, |_| {}).await;
    let failure = failed(result);
    // As every other refusal: the task waits, and neither it nor the worker is to blame.
    assert_eq!(failure.class(), FailureClass::Source);
    assert!(failure.message.contains("no such worker"), "{failure:?}");
    assert_eq!(plane.result_requests(), 6);
    assert_eq!(notices(&events).len(), 1);
}

#[tokio::test]
async fn results_of_steps_are_written_from_all_pages() {
    let mut plane = FakeControlPlane::start().await;
    let shell = "cat $ROTA_CONTEXT/previous_results.json";
    let (_, result) = run(&mut plane, |task| {
        (task.previous, task.has_step_results) = (Vec::new(), true);
        let command = CommandRuntime { shell: shell.to_owned(), ..CommandRuntime::default() };
        let runtime = task.spec.as_mut().and_then(|spec| spec.runtime.as_mut()).unwrap();
        runtime.kind = Some(runtime::Kind::Command(command));
    })
    .await;
    let Some(result::Kind::Succeeded(result)) = result.kind else { panic!("{result:?}") };
    let seen: serde_json::Value = serde_json::from_str(&result.text).unwrap();
    assert_eq!((&seen[0]["step"], &seen[0]["state"]), (&"skipped".into(), &"STEP_STATE_SKIPPED".into()));
    assert_eq!((&seen[1]["step"], &seen[1]["result"]["text"]), (&"done".into(), &"page 1.0 for t1".into()));
}

#[tokio::test]
async fn absent_or_damaged_result_makes_task_invalid() {
    for (status, requests) in [(Status::not_found("no result"), 1), (Status::data_loss("damaged"), 5)] {
        let mut plane = FakeControlPlane::start().await;
        plane.refuse_results(status.clone());
        let (_, result) = run(&mut plane, |_| {}).await;
        let failure = failed(result);
        assert_eq!(failure.class(), FailureClass::Invalid);
        assert!(failure.message.contains(status.message()), "{failure:?}");
        assert_eq!(plane.result_requests(), requests);
    }
}

#[tokio::test]
async fn timeout_names_the_error_it_waited_for() {
    let mut plane = FakeControlPlane::start().await;
    plane.refuse_results(Status::unavailable("the disk is full"));
    let (_, result) = run(&mut plane, |task| {
        let seconds = clock::unix_micros() / 1_000_000 + 10;
        task.deadline = Some(pbjson_types::Timestamp { seconds, nanos: 0 });
    })
    .await;
    let failure = failed(result);
    assert_eq!(failure.class(), FailureClass::Timeout);
    assert!(
        failure.message.contains("exceeded its deadline") && failure.message.contains("the disk is full")
    );
}
