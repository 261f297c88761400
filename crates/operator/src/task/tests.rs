//! What happens to a task, and what is kept of it.

use std::future::{pending, ready};

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::json;

use super::*;
use crate::context::tests::{api_server, context};

/// Returns a task of the namespace `team`, named by its UID.
fn task_of(uid: &str) -> Guarded<Task> {
    let metadata = format!("{{name: {uid}, namespace: team, uid: {uid}}}");
    let head = "apiVersion: rota.dev/v1alpha1, kind: Task, spec: {agent: coder, prompt: hi}";
    serde_saphyr::from_str(&format!("{{{head}, metadata: {metadata}}}")).unwrap()
}

#[test]
fn long_waits_are_published_by_one_process() {
    let (long, short) = (LONG_WAIT, LONG_WAIT / 2);
    assert!(!becomes_long(short, long) && becomes_long(long, long) && becomes_long(long, short));
    assert!(!becomes_long(2 * long, short), "an earlier process has");
}

#[test]
fn only_tasks_that_were_not_submitted_are_judged() {
    let task = |spec: &str, status: &str| -> Task {
        let head = "apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {name: x, namespace: a, uid: u}";
        serde_saphyr::from_str(&format!("{{{head}, spec: {spec}, status: {status}}}")).unwrap()
    };
    let (valid, invalid) = ("{agent: coder, prompt: hi}", "{agent: coder, worker: w}");
    let (fresh, submitted) = ("{phase: Pending}", "{phase: Running, taskId: u}");
    assert!(matches!(step(&task(valid, fresh)), Step::Submit));
    assert!(matches!(step(&task(invalid, fresh)), Step::Refuse(message) if !message.is_empty()));
    for spec in [valid, invalid] {
        assert!(matches!(step(&task(spec, submitted)), Step::Lost), "{spec}");
    }
}

#[test]
fn long_wait_is_published_when_due() {
    assert_eq!(next_check(true, LONG_WAIT / 3), LONG_WAIT - LONG_WAIT / 3);
    assert_eq!(next_check(true, LONG_WAIT), RESYNC_INTERVAL, "nothing is asked for again");
    assert_eq!(next_check(false, LONG_WAIT / 3), RESYNC_INTERVAL);
}

#[tokio::test]
async fn tasks_deleted_during_a_relist_are_forgotten() {
    let (store, mut writer) = reflector::store();
    let (trigger, _triggers) = mpsc::channel(1);
    let kube = api_server(|_, _, _| pending());
    let tasks = Parts::new(context(kube), [(store, trigger)].into()).tasks;
    for uid in ["a", "b"] {
        writer.apply_watcher_event(&Event::Apply(task_of(uid)));
        tasks.cache.insert(v1::Task { uid: uid.to_owned(), ..Default::default() });
        tasks.wait_published.lock().insert(uid.to_owned());
        tasks.waits.decided("team", uid, true, &status::WriteDue::In(LONG_WAIT));
    }
    let first_places = || ["a", "b", "next"].map(|uid| tasks.waits.ages("team", uid).place);
    assert_eq!(first_places(), [0, 1, 2]);
    // The watch was lost, and the list that follows names no deleted task.
    for change in [Event::Init, Event::InitApply(task_of("b")), Event::InitDone] {
        writer.apply_watcher_event(&change);
    }
    tasks.listed();
    assert!(tasks.cache.get("a").is_none() && tasks.cache.get("b").is_some());
    assert_eq!(*tasks.wait_published.lock(), HashSet::from(["b".to_owned()]));
    assert_eq!(first_places(), [1, 1, 1]);
}

#[tokio::test]
async fn task_with_a_record_is_not_reported_as_failing() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let kube = api_server(move |_, _, _| {
        seen.fetch_add(1, Ordering::Relaxed);
        let status = json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404 });
        ready((StatusCode::NOT_FOUND, status))
    });
    let tasks = Parts::new(context(kube), [].into()).tasks;
    let mut task = task_of("a").0.unwrap();
    task.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    // As when its first status, which is written late, is refused.
    let error = ReconcileError::ForeignPolicy("any".to_owned());
    tasks.report_failing(&task, &error).await;
    let reported = requests.load(Ordering::Relaxed);
    assert!(reported > 0, "nothing shows that it was submitted");
    tasks.cache.insert(v1::Task { uid: "a".to_owned(), ..Default::default() });
    tasks.report_failing(&task, &error).await;
    assert_eq!(requests.load(Ordering::Relaxed), reported);
}
