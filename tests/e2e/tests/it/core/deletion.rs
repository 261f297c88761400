//! Deleting a task or its namespace stops its processes, also after an outage of the control plane.

use std::time::Duration;

use rota_e2e::{Control, Outage, Space, processes, run, until};

const TEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Cancellation grace of the tasks below.
const CANCEL_GRACE: Duration = Duration::from_secs(3);
/// Tolerance added to the grace period.
const SLACK: Duration = Duration::from_secs(60);
/// Time limit for deletions that nothing blocks.
const DELETE_TIMEOUT: &str = "60s";

/// Returns an agent whose tasks, and the processes they detach, ignore signals. `seconds` identifies the processes.
fn agent(seconds: u32) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: stubborn}}
spec:
  runtime:
    command: {{shell: 'trap \"\" INT TERM; setsid sleep {seconds} & sleep {seconds} & echo started; wait; wait'}}
  replicas: 1
  maxReplicas: 1
---
"
    )
}

fn task(name: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: {name}}}
spec: {{agent: stubborn, limits: {{cancelGrace: {}s}}}}
",
        CANCEL_GRACE.as_secs()
    )
}

/// Counts the processes of the task in a pod.
async fn process_count(space: &Space, pod: &str, seconds: u32) -> usize {
    let look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '^SECONDS$' || true";
    let found = space.sh(pod, &look.replace("SECONDS", &seconds.to_string())).await.success();
    found.trim().parse().unwrap()
}

async fn wait_until_running(space: &Space, name: &str, seconds: u32) -> String {
    space.wait(&format!("task/{name}"), "condition=Running", "600s").await;
    let pod = space.field(&format!("task/{name}"), ".status.worker").await;
    until("both processes run", TEST_TIMEOUT, async || {
        (process_count(space, &pod, seconds).await == 2).then_some(())
    })
    .await;
    pod
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn deleted_task_leaves_no_process() {
    let space = Space::new("deletion").await;
    space.apply(&(agent(7301) + &task("long"))).await;
    let pod = wait_until_running(&space, "long", 7301).await;
    space.kubectl(&format!("delete task long --timeout={DELETE_TIMEOUT}")).await.success();
    until("no process is left", CANCEL_GRACE + SLACK, async || {
        (process_count(&space, &pod, 7301).await == 0).then_some(())
    })
    .await;
    // The worker is reused, and the next task of this name is a new one.
    space.apply(&task("long")).await;
    assert_eq!(wait_until_running(&space, "long", 7301).await, pod);
    space
        .kubectl("patch task long --type=merge -p {\"spec\":{\"desiredState\":\"Cancelled\"}}")
        .await
        .success();
    space.wait("task/long", "condition=Failed", "300s").await;
    assert_eq!(space.field("task/long", ".status.phase").await, "Cancelled");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn deletion_during_outage_is_caught_up() {
    let space = Space::new("deletion").await;
    let other = Space::new("deletion").await;
    space.apply(&(agent(7302) + &task("long"))).await;
    other.apply(&(agent(7303) + &task("long"))).await;
    let pod = wait_until_running(&space, "long", 7302).await;
    wait_until_running(&other, "long", 7303).await;

    let outage = Outage::start().await;
    space.kubectl(&format!("delete task long --timeout={DELETE_TIMEOUT}")).await.success();
    // Without a control plane to report to, the namespace does not wait for its pods.
    run(&format!("kubectl delete namespace {} --timeout=240s", other.name)).await.success();
    assert_eq!(process_count(&space, &pod, 7302).await, 2, "the control plane is still unavailable");

    outage.end().await;
    // Worker and operator reconnect first; then the grace period starts.
    until("no process is left", TEST_TIMEOUT, async || {
        (process_count(&space, &pod, 7302).await == 0).then_some(())
    })
    .await;
    until("no process of the deleted namespace is left", TEST_TIMEOUT, async || {
        processes("sleep 7303").is_none_or(|left| left == 0).then_some(())
    })
    .await;
    let control = Control::connect().await;
    for space in [&space, &other] {
        let list = format!("get tasks --namespace {} -o json", space.name);
        until("the record is cancelled", TEST_TIMEOUT, async || {
            let tasks = control.rota(&list).await.success();
            tasks.contains("CANCELLED").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn deleted_namespace_leaves_no_process() {
    let space = Space::new("deletion").await;
    space.apply(&(agent(7304) + &task("long"))).await;
    wait_until_running(&space, "long", 7304).await;
    // The pods have a grace period of ten minutes, and their tasks never end.
    run(&format!("kubectl delete namespace {} --timeout=240s", space.name)).await.success();
    until("no process is left", CANCEL_GRACE + SLACK, async || {
        processes("sleep 7304").is_none_or(|left| left == 0).then_some(())
    })
    .await;
}
