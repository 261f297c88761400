//! Large batches, and their cost for the API server and the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use rota_crds::resource::{Task, TaskPhase, TaskStatus};
use rota_e2e::{Audit, RELEASE, Space, client, run, until};
use serde_json::{Value, json};

const TASKS: usize = 300;
const TEST_TIMEOUT: Duration = Duration::from_secs(600);
/// Time for which a task runs until the operator writes that it does.
const RUNNING_STATUS_DELAY: SignedDuration = SignedDuration::from_secs(1);

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

    let (mut memory, mut brief) = (Vec::new(), 0);
    for round in 1..=3 {
        let audit = Audit::start();
        let finished = tokio::time::timeout(TEST_TIMEOUT, finished_tasks(&space));
        let ((), finished) = tokio::join!(create_tasks(&space, round), finished);
        let finished = finished.expect("all tasks have finished");
        for (status, _) in finished.values() {
            assert_eq!(status.phase, TaskPhase::Succeeded, "{status:?}");
            assert_eq!(status.attempt, Some(1), "{status:?}");
        }
        brief += check_running_writes(finished.values(), round);
        if let Some(audit) = audit {
            check_requests(&audit, &space.name, round);
        }
        memory.push(resident_bytes().await);
        println!("batch {round}: operator uses {} KiB", memory[memory.len() - 1] / 1024);
        space.kubectl("delete tasks.rota.dev --all --wait=false").await.success();
        until("all tasks are deleted", TEST_TIMEOUT, async || space.tasks().await.is_empty().then_some(()))
            .await;
    }
    assert!(
        brief >= TASKS / 10,
        "{brief} of {} tasks ran for less than a second: too few to show that these are not written as running. Each takes 200 ms; \
         this cluster or its workers are too slow",
        3 * TASKS
    );
    // From the second on: the allocator keeps some of the pages that the first one needed.
    assert!(memory[2] * 100 <= memory[1] * 110, "memory grows from batch to batch: {memory:?}");
    assert_eq!(space.pods.all().len(), 2, "{}", space.pods.history());
}

async fn create_tasks(space: &Space, round: usize) {
    let tasks: Api<Task> = Api::namespaced(client().await, &space.name);
    let numbers = stream::iter(0..TASKS);
    numbers
        .for_each_concurrent(64, async |number| {
            // Long enough for the operator to see that they run.
            let steps = json!([{ "output": "a line" }, { "delay": "200ms" }, { "succeed": "done" }]);
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

/// Watches the tasks until all have finished. Returns their statuses by their names, and whether one was written while they ran.
async fn finished_tasks(space: &Space) -> BTreeMap<String, (TaskStatus, bool)> {
    let tasks: Api<Task> = Api::namespaced(client().await, &space.name);
    let mut changes = pin!(watcher(tasks, watcher::Config::default()).default_backoff().applied_objects());
    let (mut finished, mut written_running) = (BTreeMap::new(), BTreeSet::new());
    while finished.len() < TASKS {
        // After an error the watch continues.
        let Some(Ok(task)) = changes.next().await else { continue };
        let (name, status) = (task.name_any(), task.status.unwrap_or_default());
        if status.phase == TaskPhase::Running {
            written_running.insert(name);
        } else if status.completion_time.is_some() {
            let was_written = written_running.contains(&name);
            finished.insert(name, (status, was_written));
        }
    }
    finished
}

/// Checks that tasks which end before the delay have no status write while they run. On a slow machine, the operator may receive the end
/// of some after it. Returns the number of such tasks.
fn check_running_writes<'a>(finished: impl Iterator<Item = &'a (TaskStatus, bool)>, round: usize) -> usize {
    let is_brief = |status: &TaskStatus| match (&status.start_time, &status.completion_time) {
        (Some(start), Some(end)) => end.0.duration_since(start.0) < RUNNING_STATUS_DELAY,
        _ => false,
    };
    let brief: Vec<_> = finished.filter(|(status, _)| is_brief(status)).collect();
    let written = brief.iter().filter(|(_, was_written)| *was_written).count();
    println!(
        "batch {round}: {} tasks ran for less than a second, {written} with a write meanwhile",
        brief.len()
    );
    assert!(2 * written <= brief.len(), "{written} of {} brief tasks were written as running", brief.len());
    brief.len()
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
    // At most three status writes: waiting, running, finished. Why a task of a burst waits is written later, if it still does.
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
