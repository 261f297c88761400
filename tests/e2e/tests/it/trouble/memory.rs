//! An attempt that needs more memory than its container may use.

use rota_e2e::Space;

use super::{agent, field_with};

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
    // With version 2 of cgroups the kernel ends the whole container, otherwise the largest process.
    let process = message.contains("the kernel killed a process for lack of memory");
    let container = message.contains("OOMKilled, memory limit 192Mi");
    assert!(process || container, "{message}");
}
