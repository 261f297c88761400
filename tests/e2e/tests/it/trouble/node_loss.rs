//! A second node that dies with a busy worker. Its kubelet is played by the test, the worker on it is a real process.

use std::process::Stdio;

use rota_e2e::{Control, Space, run, run_with, until};
use rota_telemetry::{OnExit, spawn};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{TEST_TIMEOUT, event_with};

const NODE: &str = "rota-e2e-second";

/// A node that exists as long as its status is renewed, and is deleted when dropped.
struct Node;

impl Node {
    async fn register() -> Self {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "rota-e2e": "second"}},
        });
        run_with("kubectl apply -f -", &node.to_string()).await.success();
        Self::renew().await;
        Self
    }

    /// Reports the node as ready.
    async fn renew() {
        let now = run("date -u +%Y-%m-%dT%H:%M:%SZ").await.success();
        let status = json!({"status": {
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "20"},
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "20"},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played by a test",
                "lastHeartbeatTime": now.trim(), "lastTransitionTime": now.trim(),
            }],
        }});
        let line =
            format!("kubectl patch node {NODE} --subresource=status --type=merge --patch-file /dev/stdin");
        run_with(&line, &status.to_string()).await.success();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl").args(["delete", "node", NODE, "--wait=false"]).output();
    }
}

/// Reports a pod of the node as started, as its kubelet would.
async fn start_pod(space: &Space, pod: &str) {
    let now = run("date -u +%Y-%m-%dT%H:%M:%SZ").await.success();
    let now = now.trim();
    let container = json!({
        "name": "worker", "ready": true, "started": true, "restartCount": 0, "image": "x", "imageID": "x",
        "state": {"running": {"startedAt": now}},
    });
    let kinds = ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];
    let conditions = kinds.map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}));
    let status = json!({"status": {
        "phase": "Running", "startTime": now, "containerStatuses": [container], "conditions": conditions,
    }});
    let line = format!(
        "kubectl --namespace {} patch pod {pod} --subresource=status --type=strategic --patch-file /dev/stdin",
        space.name
    );
    run_with(&line, &status.to_string()).await.success();
}

/// Starts the worker of a pod as a process of this machine, with the pod's identity.
async fn start_worker(space: &Space, control: &Control, pod: &Value, folder: &std::path::Path) -> Child {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
    let token = space
        .kubectl(&format!(
            "create token {account} --audience rota --bound-object-kind Pod --bound-object-name {name} \
             --bound-object-uid {uid}"
        ))
        .await
        .success();
    std::fs::write(folder.join("token"), token.trim()).unwrap();
    let program = rota_telemetry::env::var_os("ROTA_BIN").unwrap_or_else(|| "rota".into());
    Command::new(program)
        .args(["worker", "--worker", name, "--instance", uid, "--agent", "steady", "--slots", "1"])
        .arg("--state-dir")
        .arg(folder.join("state"))
        .env("ROTA_NAMESPACE", &space.name)
        .env("ROTA_ENDPOINT", format!("https://localhost:{}", control.port()))
        .env("ROTA_CA", control.authority())
        .env("ROTA_TOKEN_FILE", folder.join("token"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn capacity_of_a_dead_node_is_replaced() {
    let space = Space::new("node").await;
    let control = Control::connect().await;
    let node = Node::register().await;
    let alive = spawn("node", OnExit::Done, async {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            Node::renew().await;
        }
    });
    // It starts on the second node, if that is there.
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "preference": {"matchExpressions": [{"key": "rota-e2e", "operator": "In", "values": ["second"]}]},
    }]}});
    space
        .apply(&format!(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: steady}}
spec:
  runtime: {{command: {{shell: 'echo begin; until [ -e /tmp/go-{name} ]; do sleep 0.2; done; echo end'}}}}
  maxReplicas: 1
  pod: {{affinity: {affinity}}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: first}}
spec: {{agent: steady}}
",
            name = space.name
        ))
        .await;
    let pod = until("a pod on the second node", TEST_TIMEOUT, async || {
        let pods = space.get("pods").await;
        pods["items"].as_array()?.iter().find(|pod| pod["spec"]["nodeName"] == NODE).cloned()
    })
    .await;
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    start_pod(&space, &name).await;
    let folder = tempfile::tempdir().unwrap();
    let mut worker = start_worker(&space, &control, &pod, folder.path()).await;
    space.wait("task/first", "condition=Running", "120s").await;
    assert_eq!(space.field("task/first", ".status.worker").await, name);

    // The node dies with everything on it.
    alive.abort();
    worker.kill().await.unwrap();
    let second = until("a worker on the other node", TEST_TIMEOUT, async || {
        let worker = space.field("task/first", ".status.worker").await;
        let running = space.field("task/first", ".status.phase").await == "Running";
        (running && !worker.is_empty() && worker != name).then_some(worker)
    })
    .await;
    assert_ne!(space.field(&format!("pod/{second}"), ".spec.nodeName").await, NODE);
    assert_eq!(space.field("task/first", ".status.attempt").await, "2");
    event_with(&space, &name).await;
    space.sh(&second, &format!("touch /tmp/go-{}", space.name)).await.success();
    space.wait("task/first", "condition=Complete", "120s").await;
    drop(node);
    space.kubectl(&format!("delete pod {name} --force --grace-period=0 --ignore-not-found")).await.success();
}
