//! A worker that writes more to its disk than its pod may.

use rota_e2e::Space;

use super::{agent, event_with, field_with};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn eviction_is_named_and_costs_no_quarantine() {
    let space = Space::new("evicted").await;
    let command = "head -c 60000000 /dev/zero > filled; until [ -e /tmp/go ]; do sleep 0.2; done; echo over";
    let limit = "pod: {terminationGracePeriod: 10s, resources: {limits: {ephemeral-storage: 20Mi}}}";
    space.apply(&agent(command, limit)).await;
    space.wait("task/first", "condition=Running", "180s").await;
    let worker = space.field("task/first", ".status.worker").await;
    // The kubelet looks at the disk from time to time, and evicts the pod.
    field_with(&space, &format!("pod/{worker}"), ".status.reason", "Evicted").await;
    event_with(&space, "phemeral").await;
    // The task is back in the queue, and another worker takes it: an eviction is no fault of the task's.
    let second = field_with(&space, "task/first", ".status.attempt", "2").await;
    assert_eq!(second, "2");
    space
        .kubectl("patch task first --type=merge -p {\"spec\":{\"desiredState\":\"Cancelled\"}}")
        .await
        .success();
    space.wait("task/first", "jsonpath={.status.phase}=Cancelled", "120s").await;
}
