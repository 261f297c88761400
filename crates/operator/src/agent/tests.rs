//! What is kept of an agent.

use std::future::pending;

use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::json;

use super::*;
use crate::cluster::AGENT;
use crate::context::tests::{api_server, context};

/// Returns the agent `team/coder` with a UID.
fn agent(uid: &str) -> Guarded<Agent> {
    serde_json::from_value(json!({
        "apiVersion": "rota.dev/v1alpha1",
        "kind": "Agent",
        "metadata": { "name": "coder", "namespace": "team", "uid": uid },
        "spec": { "runtime": { "scripted": {} } },
    }))
    .unwrap()
}

#[tokio::test]
async fn agents_deleted_during_a_relist_are_forgotten() {
    for then in [vec![], vec![agent("new")]] {
        let (store, mut writer) = reflector::store();
        let (pods, _pods) = WorkerPods::new(None);
        let context = context(api_server(|_, _, _| pending()));
        let mut parts = Parts::new(context, vec![store], vec![pods.clone()], Arc::new([]));
        writer.apply_watcher_event(&Event::Apply(agent("old")));
        let state = parts.agents.states.of(agent("old").0.as_ref().unwrap());
        state.lock().await.registered = Some((Some(1), 0));
        let metadata = json!({ "name": "w", "namespace": "team", "uid": "w", "labels": { AGENT: "coder" } });
        pods.created(&Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap()));
        assert_eq!(pods.of("team", "coder").len(), 1);
        // The watch was lost, and the list that follows does not name what was deleted.
        let list = then.iter().cloned().map(Event::InitApply);
        for change in [Event::Init].into_iter().chain(list).chain([Event::InitDone]) {
            writer.apply_watcher_event(&change);
        }
        parts.agents.listed();
        assert_eq!(parts.agents.states.count(), 0);
        assert!(pods.of("team", "coder").is_empty());
        parts.deleted.try_recv().expect("agents without a resource are not unregistered");
        for agent in then {
            assert_eq!(parts.agents.states.of(agent.0.as_ref().unwrap()).lock().await.registered, None);
        }
    }
}
