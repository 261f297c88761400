//! What is kept of a workflow.

use std::future::pending;

use kube::runtime::reflector;
use kube::runtime::watcher::Event;

use super::*;
use crate::context::tests::{api_server, context};

/// Returns a workflow of the namespace `team`, named by its UID.
fn workflow_of(uid: &str) -> Guarded<Workflow> {
    let metadata = format!("{{name: {uid}, namespace: team, uid: {uid}}}");
    let head = "apiVersion: rota.dev/v1alpha1, kind: Workflow, spec: {steps: []}";
    serde_saphyr::from_str(&format!("{{{head}, metadata: {metadata}}}")).unwrap()
}

#[tokio::test]
async fn workflows_deleted_during_a_relist_are_forgotten() {
    let (store, mut writer) = reflector::store();
    let (trigger, _triggers) = mpsc::channel(1);
    let kube = api_server(|_, _, _| pending());
    let workflows = Parts::new(context(kube), [(store, trigger)].into()).workflows;
    for uid in ["a", "b"] {
        let workflow = workflow_of(uid);
        writer.apply_watcher_event(&Event::Apply(workflow.clone()));
        assert!(workflows.follow(workflow.0.as_ref().unwrap()));
        workflows.written.lock().insert(uid.to_owned(), Instant::now());
    }
    assert_eq!(workflows.followers.count(), 2);
    // The watch was lost, and the list that follows names no deleted workflow.
    for change in [Event::Init, Event::InitApply(workflow_of("b")), Event::InitDone] {
        writer.apply_watcher_event(&change);
    }
    workflows.listed();
    assert_eq!(workflows.followers.count(), 1);
    assert_eq!(workflows.written.lock().keys().collect::<Vec<_>>(), ["b"]);
}
