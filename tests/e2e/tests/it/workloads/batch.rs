//! Large batches, and their cost for the API server and the operator.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::{Api, PostParams};
use rota_crds::resource::Task;
use rota_e2e::{Audit, RELEASE, Space, client, run, until};
use serde_json::{Value, json};

const TASKS: usize = 300;
const TEST_TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn batches_stay_within_request_budget() {
    let space = Space::new("batch").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, replicas: 2, maxReplicas: 2, slots: 8}
",
        )
        .await;
    space.wait("agent/actor", "condition=Ready", "180s").await;

    let mut memory = Vec::new();
    for round in 1..=3 {
        let audit = Audit::start();
        create_tasks(&space, round).await;
        // `kubectl wait` would poll each task separately, five per second.
        let tasks = until("all tasks have finished", TEST_TIMEOUT, async || {
            let tasks = space.tasks().await;
            tasks.iter().all(|task| !task["status"]["completionTime"].is_null()).then_some(tasks)
        })
        .await;
        assert_eq!(tasks.len(), TASKS);
        for task in &tasks {
            assert_eq!(task["status"]["phase"], "Succeeded", "{}", task["status"]);
            assert_eq!(task["status"]["attempt"], 1, "{}", task["status"]);
        }
        if let Some(audit) = audit {
            check_requests(&audit, &space.name, round);
        }
        memory.push(resident_bytes().await);
        println!("batch {round}: operator uses {} KiB", memory[memory.len() - 1] / 1024);
        space.kubectl("delete tasks.rota.dev --all --wait=false").await.success();
        until("all tasks are deleted", TEST_TIMEOUT, async || space.tasks().await.is_empty().then_some(()))
            .await;
    }
    // From the second on: the allocator keeps some of the pages that the first one needed.
    assert!(memory[2] * 100 <= memory[1] * 110, "memory grows from batch to batch: {memory:?}");
    assert_eq!(space.pods.all().len(), 2, "{}", space.pods.history());
}

async fn create_tasks(space: &Space, round: usize) {
    let tasks: Api<Task> = Api::namespaced(client().await, &space.name);
    let numbers = stream::iter(0..TASKS);
    numbers
        .for_each_concurrent(64, async |number| {
            let steps = json!([{ "output": "a line" }, { "succeed": "done" }]);
            let task: Task = serde_json::from_value(json!({
                "apiVersion": "rota.dev/v1alpha1",
                "kind": "Task",
                "metadata": { "name": format!("part-{round}-{number}") },
                "spec": { "agent": "actor", "runtime": { "scripted": { "steps": steps } } },
            }))
            .unwrap();
            tasks.create(&PostParams::default(), &task).await.unwrap();
        })
        .await;
}

/// Prints and checks the operator's requests in a namespace against the documented budget.
fn check_requests(audit: &Audit, namespace: &str, round: usize) {
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    let mut writes = 0;
    for call in audit.calls() {
        if call.user.username.contains("rota-operator") && call.object_ref.namespace == namespace {
            writes += usize::from(call.writes());
            *calls.entry(call.kind()).or_default() += 1;
        }
    }
    let of = |kind: &str| calls.get(kind).copied().unwrap_or_default();
    let each = |count: usize| format!("{}.{:02}", count / TASKS, count % TASKS * 100 / TASKS);
    println!("batch {round}: {} writes per task by the operator: {calls:?}", each(writes));
    // At most three status writes: waiting, running, finished.
    assert!(of("patch tasks/status") <= 3 * TASKS, "{calls:?}");
    // The operator learns of tasks from its watch.
    assert_eq!(of("get tasks") + of("list tasks"), 0, "{calls:?}");
    assert_eq!(of("create pods") + of("delete pods"), 0, "the pool has a fixed size: {calls:?}");
}

/// Returns the resident memory of the operator, as measured by the kubelet after this call.
async fn resident_bytes() -> u64 {
    let now = run("date --utc +%Y-%m-%dT%H:%M:%SZ").await.success();
    until("the kubelet has measured the operator", TEST_TIMEOUT, async || {
        let pods =
            "get pods --selector app.kubernetes.io/component=operator -o jsonpath={.items[0].spec.nodeName}";
        let node = run(&format!("kubectl --namespace {RELEASE} {pods}")).await.success();
        let raw = run(&format!("kubectl get --raw /api/v1/nodes/{node}/proxy/stats/summary")).await.success();
        let summary: Value = serde_json::from_str(&raw).unwrap();
        let memory = summary["pods"].as_array()?.iter().find_map(|pod| {
            let name = pod["podRef"]["name"].as_str()?;
            let ours = pod["podRef"]["namespace"] == RELEASE && name.starts_with("rota-operator");
            ours.then(|| pod["containers"][0]["memory"].clone())
        })?;
        // These timestamps sort as text.
        (memory["time"].as_str()? > now.trim()).then(|| memory["rssBytes"].as_u64()).flatten()
    })
    .await
}
