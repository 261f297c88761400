//! What is kept of an agent.

use std::future::pending;

use futures::FutureExt;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
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

/// Returns agents without any, what writes their store, and the pods that they await.
fn parts() -> (Parts, Writer<Guarded<Agent>>, WorkerPods) {
    let (store, writer) = reflector::store();
    let (pods, _) = WorkerPods::new(None);
    let context = context(api_server(|_, _, _| pending()));
    (Parts::new(context, vec![store], vec![pods.clone()], Arc::new([])), writer, pods)
}

/// Returns the state of an agent, if one is kept or created.
fn state_of(parts: &Parts, uid: &str) -> Option<Arc<tokio::sync::Mutex<AgentState>>> {
    parts.agents.states.of(agent(uid).0.as_ref().unwrap(), &parts.agents.stores)
}

/// Awaits a pod of the agent.
fn await_pod(pods: &WorkerPods) {
    let metadata = json!({ "name": "w", "namespace": "team", "uid": "w", "labels": { AGENT: "coder" } });
    pods.created(&Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap()));
    assert_eq!(pods.of("team", "coder").len(), 1);
}

fn list(writer: &mut Writer<Guarded<Agent>>, agents: &[Guarded<Agent>]) {
    let list = agents.iter().cloned().map(Event::InitApply);
    for change in [Event::Init].into_iter().chain(list).chain([Event::InitDone]) {
        writer.apply_watcher_event(&change);
    }
}

#[tokio::test]
async fn agents_deleted_during_a_relist_are_forgotten() {
    for then in [vec![], vec![agent("new")]] {
        let (mut parts, mut writer, pods) = parts();
        writer.apply_watcher_event(&Event::Apply(agent("old")));
        let state = state_of(&parts, "old").unwrap();
        state.lock().await.registered = Some((Some(1), 0));
        await_pod(&pods);
        // The watch was lost, and the list that follows does not name what was deleted.
        list(&mut writer, &then);
        parts.agents.listed();
        assert_eq!(parts.agents.states.count(), 0);
        assert!(pods.of("team", "coder").is_empty());
        parts.deleted.try_recv().expect("agents without a resource are not unregistered");
        if !then.is_empty() {
            assert_eq!(state_of(&parts, "new").unwrap().lock().await.registered, None);
        }
    }
}

#[tokio::test]
async fn successor_keeps_its_pods_at_a_list() {
    let (parts, mut writer, pods) = parts();
    writer.apply_watcher_event(&Event::Apply(agent("old")));
    state_of(&parts, "old").unwrap();
    // As if its last version could not be deserialized: its deletion removed no state.
    writer.apply_watcher_event(&Event::Delete(agent("old")));
    writer.apply_watcher_event(&Event::Apply(agent("new")));
    state_of(&parts, "new").unwrap();
    await_pod(&pods);
    list(&mut writer, &[agent("new")]);
    parts.agents.listed();
    assert_eq!((parts.agents.states.count(), pods.of("team", "coder").len()), (1, 1));
}

#[tokio::test]
async fn agent_deleted_before_its_reconciliation_is_skipped() {
    for successor in [None, Some(agent("new"))] {
        let (parts, mut writer, _) = parts();
        writer.apply_watcher_event(&Event::Apply(agent("old")));
        let old = agent("old").0.unwrap();
        let reconciliation = Box::pin(parts.agents.reconcile(&old));
        writer.apply_watcher_event(&Event::Delete(agent("old")));
        parts.agents.deleted(&old);
        successor.into_iter().for_each(|new| writer.apply_watcher_event(&Event::Apply(new)));
        assert!(reconciliation.now_or_never().is_some_and(|reconciled| reconciled.is_ok()));
        assert_eq!(parts.agents.states.count(), 0);
    }
}
