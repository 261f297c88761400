//! Whatever dies, every task ends once, and what runs on a worker that lives on is not begun again.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_e2e::{Control, RELEASE, Space, run, run_with, until};
use rota_telemetry::{OnExit, spawn};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);

const AGENT: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: steady}
spec:
  runtime: {command: {shell: 'echo begin; until [ -e /tmp/go ]; do sleep 0.2; done; echo end'}}
  slots: 2
  replicas: 3
  maxReplicas: 3
";

fn tasks() -> String {
    (0..6)
        .map(|number| {
            format!(
                "---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: job-{number}}}
spec: {{agent: steady}}
"
            )
        })
        .collect()
}

/// Each task's phase, worker and attempt.
async fn where_they_are(space: &Space) -> BTreeMap<String, (String, String, i64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |task: &Value| {
        let status = &task["status"];
        let attempt = status["attempt"].as_i64().unwrap_or_default();
        (text(&task["metadata"]["name"]), (text(&status["phase"]), text(&status["worker"]), attempt))
    };
    space.tasks().await.iter().map(of).collect()
}

/// Waits until `deployment` has another pod than `old`, which serves.
async fn renewed(deployment: &str, old: &str) {
    let label = format!("-l app.kubernetes.io/component={deployment} -o name");
    until("there is a new pod", LIMIT, async || {
        let pods = run(&format!("kubectl -n {RELEASE} get pods {label}")).await.good();
        (!pods.contains(old) && !pods.is_empty()).then_some(())
    })
    .await;
    run(&format!("kubectl -n {RELEASE} rollout status deployment/rota-{deployment} --timeout=180s"))
        .await
        .good();
}

/// The space's workers, as the control plane has them.
async fn workers(space: &Space, control: &Control) -> Vec<Value> {
    let line = format!("get workers --namespace {} -o json", space.name);
    let said: Value = serde_json::from_str(&control.rota(&line).await.good()).unwrap();
    said["workers"].as_array().cloned().unwrap_or_default()
}

/// Waits until a worker takes nothing new.
async fn drains(space: &Space, control: &Control, name: &str) {
    until("the worker drains", LIMIT, async || {
        let all = workers(space, control).await;
        let same = |worker: &&Value| worker["name"].as_str().is_some_and(|full| full.ends_with(name));
        all.iter().find(same).is_some_and(|worker| worker["draining"] == true).then_some(())
    })
    .await;
}

async fn pod_of(deployment: &str) -> String {
    let label = format!("-l app.kubernetes.io/component={deployment}");
    let name = "-o jsonpath={.items[0].metadata.name}";
    run(&format!("kubectl -n {RELEASE} get pods {label} {name}")).await.good()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn faults_of_every_part() {
    let space = Space::new("faults").await;
    space.apply(&(AGENT.to_owned() + &tasks())).await;
    space.wait("tasks.rota.dev --all", "condition=Running", "180s").await;
    let began = where_they_are(&space).await;
    let used: Vec<_> = {
        let mut all: Vec<_> = began.values().map(|(_, worker, _)| worker.clone()).collect();
        all.sort();
        all.dedup();
        all
    };
    assert_eq!(used.len(), 3, "{began:?}");

    // The operator without a word, the control plane as a node drain does it.
    let (operator, server) = (pod_of("operator").await, pod_of("server").await);
    run(&format!("kubectl -n {RELEASE} delete pod {operator} --force --grace-period=0")).await.good();
    run(&format!("kubectl -n {RELEASE} delete pod {server} --wait=false")).await.good();
    renewed("server", &server).await;
    renewed("operator", &operator).await;
    let control = Control::connect().await;
    until("all workers are connected again", LIMIT, async || {
        let all = workers(&space, &control).await;
        (all.iter().filter(|worker| worker["connected"] == true).count() == 3).then_some(())
    })
    .await;
    assert_eq!(where_they_are(&space).await, began, "nothing was begun again");

    // A worker without a word; its tasks go elsewhere.
    let (lost, evicted) = (&used[0], &used[1]);
    space.kubectl(&format!("delete pod {lost} --force --grace-period=0")).await.good();
    until("its tasks run elsewhere", LIMIT, async || {
        let now = where_they_are(&space).await;
        let moved = began.iter().filter(|(_, was)| &was.1 == lost).all(|(name, _)| {
            let (phase, worker, attempt) = &now[name];
            phase == "Running" && worker != lost && *attempt == 2
        });
        moved.then_some(())
    })
    .await;

    // A worker is evicted, which it hears of; it finishes what it has.
    let path = format!("/api/v1/namespaces/{}/pods/{evicted}/eviction", space.name);
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": evicted, "namespace": space.name},
    });
    run_with(&format!("kubectl create --raw {path} -f -"), &eviction.to_string()).await.good();
    drains(&space, &control, evicted).await;

    let now = where_they_are(&space).await;
    let mut busy: Vec<_> = now.values().map(|(_, worker, _)| worker.clone()).collect();
    busy.sort();
    busy.dedup();
    for worker in &busy {
        space.sh(worker, "touch /tmp/go").await.good();
    }
    space.wait("tasks.rota.dev --all", "condition=Complete", "180s").await;
    for (name, (_, worker, attempt)) in where_they_are(&space).await {
        let was = &began[&name];
        if &was.1 == lost {
            assert_eq!(attempt, 2, "{name}");
        } else {
            assert_eq!((&worker, attempt), (&was.1, 1), "{name} was begun again");
        }
        let logs = control.rota(&format!("logs {name} --namespace {}", space.name)).await.good();
        assert_eq!(logs.lines().filter(|line| *line == "end").count(), 1, "{name}: {logs}");
    }
    let left = until("the evicted one has left", LIMIT, async || {
        space
            .pods
            .ever()
            .into_iter()
            .find(|pod| pod.metadata.name.as_ref() == Some(evicted) && !rota_e2e::is_there(pod))
    })
    .await;
    let phase = left.status.and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Succeeded"), "it ended by itself");
}

/// Lets pods come to a node again, whatever became of the test.
struct Cordoned(String);

impl Drop for Cordoned {
    fn drop(&mut self) {
        let uncordoned = std::process::Command::new("kubectl").args(["uncordon", &self.0]).output();
        if let Err(error) = uncordoned {
            eprintln!("the node {} takes no pods: {error}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn faults_of_a_node_that_is_drained() {
    let space = Space::new("drain").await;
    let one = AGENT.replace("slots: 2", "slots: 1").replace("eplicas: 3", "eplicas: 1");
    let task = |name: &str| tasks().split("---").nth(1).unwrap().replace("job-0", name);
    space.apply(&format!("{one}---{}", task("runs"))).await;
    space.wait("task/runs", "condition=Running", "180s").await;
    let worker = space.field("task/runs", ".status.worker").await;
    let node = space.field(&format!("pod/{worker}"), ".spec.nodeName").await;
    let _cordoned = Cordoned(node.clone());
    // It waits until the pods have left, as it does for the person who types it.
    let selector = "--pod-selector=rota.dev/role=worker --delete-emptydir-data --timeout=240s";
    let line = format!("kubectl drain {node} {selector}");
    let drain = spawn("drain", OnExit::Done, async move { run(&line).await });
    drains(&space, &Control::connect().await, &worker).await;
    space.apply(&task("waits")).await;
    space.sh(&worker, "touch /tmp/go").await.good();
    space.wait("task/runs", "condition=Complete", "180s").await;
    drain.await.unwrap().good();
    assert_eq!(space.field("task/runs", ".status.attempt").await, "1");
    // No place is left, and the task that waits says so.
    until("it is said why nothing runs", LIMIT, async || {
        space.field("task/waits", ".status.message").await.contains("unschedulable").then_some(())
    })
    .await;
    run(&format!("kubectl uncordon {node}")).await.good();
    space.wait("task/waits", "condition=Running", "180s").await;
    let worker = space.field("task/waits", ".status.worker").await;
    space.sh(&worker, "touch /tmp/go").await.good();
    space.wait("task/waits", "condition=Complete", "180s").await;
}
