//! Drain of a node with a busy worker.

use rota_e2e::{Control, Space, run, until};
use rota_telemetry::{OnExit, spawn};

use super::{AGENT, TEST_TIMEOUT, tasks, wait_until_draining};

/// Cordoned node, which is uncordoned when dropped.
pub(super) struct Cordoned(pub(super) String);

impl Drop for Cordoned {
    fn drop(&mut self) {
        let uncordoned = std::process::Command::new("kubectl").args(["uncordon", &self.0]).output();
        if let Err(error) = uncordoned {
            eprintln!("failed to uncordon the node {}: {error}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn drained_node_finishes_its_tasks() {
    let space = Space::new("drain").await;
    let one = AGENT.replace("slots: 2", "slots: 1").replace("eplicas: 3", "eplicas: 1");
    let task = |name: &str| tasks().split("---").nth(1).unwrap().replace("job-0", name);
    space.apply(&format!("{one}---{}", task("runs"))).await;
    space.wait("task/runs", "condition=Running", "180s").await;
    let worker = space.field("task/runs", ".status.worker").await;
    let node = space.field(&format!("pod/{worker}"), ".spec.nodeName").await;
    let _cordoned = Cordoned(node.clone());
    // `kubectl drain` blocks until the pods are deleted.
    let selector = "--pod-selector=rota.dev/role=worker --delete-emptydir-data --timeout=240s";
    let line = format!("kubectl drain {node} {selector}");
    let drain = spawn("drain", OnExit::Done, async move { run(&line).await });
    wait_until_draining(&space, &Control::connect().await, &worker).await;
    space.apply(&task("waits")).await;
    space.sh(&worker, "touch /tmp/go").await.success();
    space.wait("task/runs", "condition=Complete", "180s").await;
    drain.await.unwrap().success();
    assert_eq!(space.field("task/runs", ".status.attempt").await, "1");
    // No node is left, and the waiting task reports it.
    until("the wait is explained", TEST_TIMEOUT, async || {
        space.field("task/waits", ".status.message").await.contains("unschedulable").then_some(())
    })
    .await;
    run(&format!("kubectl uncordon {node}")).await.success();
    space.wait("task/waits", "condition=Running", "180s").await;
    let worker = space.field("task/waits", ".status.worker").await;
    space.sh(&worker, "touch /tmp/go").await.success();
    space.wait("task/waits", "condition=Complete", "180s").await;
}
