//! Agents whose workers cannot start.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use rota_e2e::{Space, until};

const TEST_TIMEOUT: Duration = Duration::from_secs(600);

fn waiting_reason(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.first()?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn missing_image_is_reported_and_recovers() {
    let space = Space::new("image").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: nowhere}
spec: {runtime: {scripted: {}}, maxReplicas: 2, pod: {image: 'nowhere.invalid/none:1'}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: waits}
spec: {agent: nowhere}
",
        )
        .await;
    until("the image pull fails", TEST_TIMEOUT, async || {
        space
            .pods
            .now()
            .iter()
            .any(|pod| waiting_reason(pod).is_some_and(|reason| reason.contains("Image")))
            .then_some(())
    })
    .await;
    let on_agent = until("the agent reports the failure", TEST_TIMEOUT, async || {
        let message = space.field("agent/nowhere", ".status.message").await;
        message.contains("nowhere.invalid").then_some(message)
    })
    .await;
    space.wait("agent/nowhere", "condition=Ready=False", "600s").await;
    let on_task = until("the task reports the failure", TEST_TIMEOUT, async || {
        let message = space.field("task/waits", ".status.message").await;
        message.contains("nowhere.invalid").then_some(message)
    })
    .await;
    println!("agent: {on_agent}\ntask:  {on_task}");

    // With an existing image, the task runs without further action.
    space
        .kubectl("patch agent nowhere --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/pod\"}]")
        .await
        .success();
    space.wait("task/waits", "condition=Complete", "600s").await;
    until("the agent reports no failure", TEST_TIMEOUT, async || {
        space.field("agent/nowhere", ".status.message").await.is_empty().then_some(())
    })
    .await;
}
