//! Rollout of a changed agent with busy workers, and its scale subresource.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rota_e2e::{Space, is_active, run_with, until};
use serde_json::Value;

const TEST_TIMEOUT: Duration = Duration::from_secs(180);
const HASH: &str = "rota.dev/spec-hash";

fn hashes(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter(|pod| is_active(pod)).filter_map(|pod| pod.labels().get(HASH).cloned()).collect()
}

/// Returns tasks that run until a file is created.
fn tasks(numbers: std::ops::Range<usize>) -> String {
    numbers
        .map(|number| {
            format!(
                "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: long-{number}}}
spec: {{agent: mover}}
---
"
            )
        })
        .collect()
}

fn agent(more: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: mover}}
spec:
  runtime: {{command: {{shell: 'until [ -e /tmp/go ]; do sleep 0.2; done; echo done'}}}}
  replicas: 3
  maxReplicas: 3
  {more}
"
    )
}

async fn release(space: &Space, tasks: &[Value]) {
    let workers: BTreeSet<_> = tasks.iter().filter_map(|task| task["status"]["worker"].as_str()).collect();
    for worker in workers {
        space.sh(worker, "touch /tmp/go").await.success();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn rollout_interrupts_no_task() {
    let space = Space::new("rollout").await;
    space.apply(&agent("slots: 1")).await;
    space.wait("agent/mover", "jsonpath={.status.idleWorkers}=3", "180s").await;
    let old = hashes(&space.pods.now());
    assert_eq!(old.len(), 1);
    // Two are busy, one is idle.
    space.apply(&tasks(0..2)).await;
    space.wait("tasks.rota.dev --all", "condition=Running", "60s").await;
    let before = space.tasks().await;

    // Changes slots, a label and resources together.
    let change = "slots: 2
  pod: {labels: {team: blue}, resources: {requests: {cpu: 10m, memory: 32Mi}}}";
    space.apply(&agent(change)).await;
    // The idle worker is replaced while the busy ones continue.
    let new = until("a worker has the new spec", TEST_TIMEOUT, async || {
        hashes(&space.pods.now()).difference(&old).next().cloned()
    })
    .await;
    space.apply(&tasks(2..4)).await;
    space.wait("task/long-2 task/long-3", "condition=Running", "180s").await;
    for task in space.tasks().await {
        assert_eq!((&task["status"]["phase"], &task["status"]["attempt"]), (&"Running".into(), &1.into()));
    }
    let during = space.tasks().await;
    for (was, is) in before.iter().zip(&during) {
        assert_eq!(was["status"]["worker"], is["status"]["worker"], "the task was moved");
    }
    release(&space, &during).await;
    space.wait("tasks.rota.dev --all", "condition=Complete", "180s").await;
    for task in space.tasks().await {
        assert_eq!(task["status"]["attempt"], 1, "{}", task["status"]);
    }
    until("all workers have the new spec", TEST_TIMEOUT, async || {
        let active: Vec<_> = space.pods.now().into_iter().filter(is_active).collect();
        (active.len() == 3 && hashes(&active) == BTreeSet::from([new.clone()])).then_some(())
    })
    .await;
    for pod in space.pods.now().iter().filter(|pod| is_active(pod)) {
        assert_eq!(pod.labels().get("team").map(String::as_str), Some("blue"));
    }
    assert_eq!(space.pods.forced_exits(), [""; 0], "{}", space.pods.history());
    println!("rollout of 3 workers: {} pods in total", space.pods.all().len());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn scale_subresource_resizes_the_pool() {
    let space = Space::new("size").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: mover}
spec: {runtime: {scripted: {}}, replicas: 1, maxReplicas: 3, idleTimeout: 1s}
",
        )
        .await;
    space.wait("agent/mover", "condition=Ready", "120s").await;
    space.kubectl("scale agent/mover --replicas=2").await.success();
    space.wait("agent/mover", "jsonpath={.status.readyWorkers}=2", "120s").await;

    // Like an autoscaler: through the subresource, whose selector matches the pods.
    let path = format!("/apis/rota.dev/v1alpha1/namespaces/{}/agents/mover/scale", space.name);
    let read = async || -> Value {
        serde_json::from_str(&run_with(&format!("kubectl get --raw {path}"), "").await.success()).unwrap()
    };
    let mut scale = read().await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&2.into(), &2.into()));
    let selector = scale["status"]["selector"].as_str().unwrap().to_owned();
    let found = space.kubectl(&format!("get pods -l {selector} -o name")).await.success();
    assert_eq!(found.lines().count(), 2, "{selector}: {found}");
    scale["spec"]["replicas"] = 3.into();
    run_with(&format!("kubectl replace --raw {path} -f -"), &scale.to_string()).await.success();
    space.wait("agent/mover", "jsonpath={.status.readyWorkers}=3", "120s").await;
    space.kubectl("scale agent/mover --replicas=0").await.success();
    until("the pool is empty", TEST_TIMEOUT, async || space.pods.now().is_empty().then_some(())).await;
    assert_eq!(read().await["status"]["replicas"], 0);
    assert_eq!(space.pods.forced_exits(), [""; 0], "{}", space.pods.history());

    // The API server rejects a size above the maximum.
    let rejected = space.kubectl("scale agent/mover --replicas=4").await.failure();
    assert!(rejected.contains("maxReplicas must not be below replicas"), "{rejected}");
}
