//! Priorities and suspension of waiting tasks.

use std::time::Duration;

use rota_e2e::{Control, Space, until};
use serde_json::Value;

const TEST_TIMEOUT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn urgent_tasks_start_first() {
    let space = Space::new("order").await;
    let task = |name: &str, more: &str| {
        format!(
            "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: {name}}}
spec: {{agent: shell, {more}}}
---
"
        )
    };
    space
        .apply(
            &("apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {shell: 'cat'}}, replicas: 1, maxReplicas: 1, overrides: All}
---
"
            .to_owned()
                + &task("first", "runtime: {command: {shell: 'until [ -e /tmp/go ]; do sleep 0.2; done'}}")),
        )
        .await;
    space.wait("task/first", "condition=Running", "120s").await;
    space
        .apply(
            &(task("low", "priority: LOW")
                + &task("raised", "priority: 0")
                + &task("held", "desiredState: Suspended")),
        )
        .await;
    for waiting in ["low", "raised", "held"] {
        space.wait(&format!("task/{waiting}"), "jsonpath={.status.taskId}", "60s").await;
    }
    assert_eq!(space.field("task/held", ".status.phase").await, "Pending");
    space.kubectl("patch task raised --type=merge -p {\"spec\":{\"priority\":\"URGENT\"}}").await.success();
    let control = Control::connect().await;
    let raised = format!("get tasks raised --namespace {} -o json", space.name);
    until("the control plane has the new priority", TEST_TIMEOUT, async || {
        let listed: Value = serde_json::from_str(&control.rota(&raised).await.success()).unwrap();
        (listed["tasks"][0]["priority"] == 10 || listed["priority"] == 10).then_some(())
    })
    .await;
    let worker = space.field("task/first", ".status.worker").await;
    space.sh(&worker, "touch /tmp/go").await.success();
    space.wait("task/first task/low task/raised", "condition=Complete", "120s").await;
    // Of the control plane: the resources have whole seconds, in which both may start.
    let started = async |name: &str| -> jiff::Timestamp {
        let line = format!("get tasks {name} --namespace {} -o json", space.name);
        let task: Value = serde_json::from_str(&control.rota(&line).await.success()).unwrap();
        let task = task["tasks"].get(0).unwrap_or(&task);
        task["status"]["startTime"].as_str().expect("a start").parse().unwrap()
    };
    assert!(started("raised").await < started("low").await);
    // All others have finished; the suspended task was not started.
    assert_eq!(space.field("task/held", ".status.phase").await, "Pending");
    space.kubectl("patch task held --type=merge -p {\"spec\":{\"desiredState\":\"Run\"}}").await.success();
    space.wait("task/held", "condition=Complete", "60s").await;
}
