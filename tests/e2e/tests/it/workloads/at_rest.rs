//! Many agents and tasks at rest: what they cost the API server, the operator and the control plane. `make e2e-at-rest` has more of
//! them than the tests of a change.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::{Api, PostParams};
use rota_crds::resource::{Agent, Task};
use rota_e2e::{Audit, Component, Control, RELEASE, Space, Usage, client, run, until};
use serde_json::{Value, json};

const TEST_TIMEOUT: Duration = Duration::from_secs(900);
/// How long calls are counted.
const REST: Duration = Duration::from_secs(60);
/// Calls that are left at rest, of any number of objects: those for the release's own Secrets, for example.
const MAX_CALLS_AT_REST: usize = 20;
/// Reads of a restarted operator that do not depend on the number of agents.
const MAX_SHARED_READS: usize = 64;
/// Memory that the operator may take for each object.
const MAX_BYTES_PER_OBJECT: u64 = 32 * 1024;

fn setting(name: &str, default: usize) -> usize {
    rota_telemetry::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Counts the operator's calls by kind, without its lease.
fn calls(audit: &Audit) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for call in audit.calls() {
        let ours = call.user.username.contains("rota-operator");
        if ours && call.object_ref.resource != "leases" && call.verb != "watch" {
            *calls.entry(call.kind()).or_default() += 1;
        }
    }
    calls
}

async fn create<K>(objects: Api<K>, count: usize, object: impl Fn(usize) -> Value)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let objects = &objects;
    stream::iter((0..count).map(object))
        .for_each_concurrent(16, async |object| {
            let object = serde_json::from_value(object).unwrap();
            objects.create(&PostParams::default(), &object).await.unwrap();
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn objects_at_rest_cost_nothing() {
    let (agents, tasks) = (setting("ROTA_E2E_AGENTS", 40), setting("ROTA_E2E_TASKS", 200));
    let space = Space::new("at-rest").await;
    let empty = Usage::of(Component::Operator).await;
    let agent = |number| {
        json!({
            "apiVersion": "rota.dev/v1alpha1", "kind": "Agent",
            "metadata": {"name": format!("agent-{number}")},
            "spec": {"runtime": {"scripted": {}}, "maxReplicas": 0},
        })
    };
    let task = |number: usize| {
        json!({
            "apiVersion": "rota.dev/v1alpha1", "kind": "Task",
            "metadata": {"name": format!("task-{number}")},
            "spec": {"agent": format!("agent-{}", number % agents)},
        })
    };
    create(Api::<Agent>::namespaced(client().await, &space.name), agents, agent).await;
    create(Api::<Task>::namespaced(client().await, &space.name), tasks, task).await;
    let explained = async || {
        let all = space.tasks().await;
        let has_message = |task: &&Value| task["status"]["message"].is_string();
        all.iter().filter(has_message).count()
    };
    until("all tasks are explained", TEST_TIMEOUT, async || (explained().await == tasks).then_some(())).await;
    // A long wait is published as an Event, once.
    until("all waits are published", TEST_TIMEOUT, async || {
        let events = space.kubectl("get events --field-selector reason=Waiting -o name").await.success();
        (events.lines().count() == tasks).then_some(())
    })
    .await;

    let (before, audit) =
        ((Usage::of(Component::Operator).await, Usage::of(Component::Server).await), Audit::start());
    tokio::time::sleep(REST).await;
    let after = (Usage::of(Component::Operator).await, Usage::of(Component::Server).await);
    println!(
        "{agents} agents and {tasks} tasks at rest: operator {} KiB ({} KiB without them), {:.2} % of a core; \
         control plane {} KiB, {:.2} %",
        after.0.resident_bytes / 1024,
        empty.resident_bytes / 1024,
        (after.0.cpu_seconds - before.0.cpu_seconds) / REST.as_secs_f64() * 100.0,
        after.1.resident_bytes / 1024,
        (after.1.cpu_seconds - before.1.cpu_seconds) / REST.as_secs_f64() * 100.0,
    );
    if let Some(audit) = audit {
        let calls = calls(&audit);
        println!("calls of the operator in {REST:?}: {calls:?}");
        assert!(calls.values().sum::<usize>() <= MAX_CALLS_AT_REST, "{calls:?}");
    }
    let grown = after.0.resident_bytes.saturating_sub(empty.resident_bytes);
    // A small number of objects does not show in the pages of the allocator.
    let objects = (agents + tasks).max(1000) as u64;
    assert!(grown < objects * MAX_BYTES_PER_OBJECT, "{grown} bytes for {objects} objects");

    // A restarted operator reads everything, and writes nothing again.
    let audit = Audit::start();
    run(&format!("kubectl -n {RELEASE} rollout restart deployment/rota-operator")).await.success();
    run(&format!("kubectl -n {RELEASE} rollout status deployment/rota-operator --timeout=180s"))
        .await
        .success();
    space.apply(&serde_json::to_string(&task(tasks)).unwrap()).await;
    until("the new operator has caught up", TEST_TIMEOUT, async || {
        (explained().await == tasks + 1).then_some(())
    })
    .await;
    if let Some(audit) = audit {
        let calls = calls(&audit);
        println!("calls of the restarted operator: {calls:?}");
        let written = calls.get("patch tasks/status").copied().unwrap_or_default();
        assert!(written <= 2, "{calls:?}");
        let read = calls.get("get tasks").copied().unwrap_or_default();
        let published = calls.get("create events").copied().unwrap_or_default();
        assert_eq!((read, published), (0, 0), "{calls:?}");
        // A policy for each agent, and what all agents of a namespace share.
        let of_agents: usize = ["get networkpolicies", "list networkpolicies", "get configmaps"]
            .iter()
            .filter_map(|kind| calls.get(*kind))
            .sum();
        assert!(of_agents <= agents + MAX_SHARED_READS, "{calls:?}");
    }

    // A restarted control plane has all of them again, and nothing is written to the cluster again.
    let audit = Audit::start();
    run(&format!("kubectl -n {RELEASE} rollout restart deployment/rota-server")).await.success();
    run(&format!("kubectl -n {RELEASE} rollout status deployment/rota-server --timeout=180s"))
        .await
        .success();
    space.apply(&serde_json::to_string(&task(tasks + 1)).unwrap()).await;
    until("the operator has caught up", TEST_TIMEOUT, async || {
        (explained().await == tasks + 2).then_some(())
    })
    .await;
    if let Some(audit) = audit {
        let calls = calls(&audit);
        println!("calls of the operator after a restart of the control plane: {calls:?}");
        let written = calls.get("patch tasks/status").copied().unwrap_or_default();
        assert!(written <= 2, "{calls:?}");
    }

    space.kubectl("delete tasks.rota.dev --all --wait=false").await.success();
    let control = Control::connect().await;
    let open = format!("get tasks --namespace {} --state pending --state queued -o json", space.name);
    until("no record is open", TEST_TIMEOUT, async || {
        let listed: Value = serde_json::from_str(&control.rota(&open).await.success()).unwrap();
        listed["tasks"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await;
}
