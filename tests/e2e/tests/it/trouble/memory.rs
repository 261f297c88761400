//! An attempt that needs more memory than its container may use.

use rota_e2e::Space;

use super::{agent, event_with, field_with};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn lack_of_memory_is_named() {
    let space = Space::new("memory").await;
    // `tail` keeps its whole input, which has no line ends.
    let command = "head -c 600000000 /dev/zero | tail > /dev/null";
    space.apply(&agent(command, "pod: {resources: {limits: {memory: 192Mi}}}")).await;
    space.wait("task/first", "condition=Failed", "240s").await;
    let message = field_with(&space, "task/first", ".status.message", "emory").await;
    println!("task: {message}");
    // The kernel ended the whole container, as Kubernetes asks it to: the pod and its evidence stay for a while.
    if message.contains("OOMKilled") {
        assert!(message.contains("memory limit 192Mi"), "{message}");
        event_with(&space, "OOMKilled").await;
        let kept = space.kubectl("get pods -o jsonpath={.items[*].status.phase}").await.success();
        assert_eq!(kept, "Failed");
    }
}
