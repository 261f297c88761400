//! Deletion of finished tasks after their time to live.

use rota_e2e::{Control, Space};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn expired_task_keeps_its_record() {
    let space = Space::new("ttl").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, replicas: 1, maxReplicas: 1}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: brief}
spec: {agent: actor, ttlAfterFinished: 2s, runtime: {scripted: {steps: [{succeed: kept}]}}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: stays}
spec: {agent: actor, runtime: {scripted: {steps: [{succeed: kept}]}}}
",
        )
        .await;
    space.wait("task/brief", "delete", "120s").await;
    space.wait("task/stays", "condition=Complete", "60s").await;
    let control = Control::connect().await;
    let record = control.rota(&format!("get tasks brief --namespace {} -o json", space.name)).await.success();
    assert!(record.contains("TASK_STATE_SUCCEEDED"), "{record}");
    // The TTL may be set after the end.
    space
        .kubectl("patch task stays --type=merge -p {\"spec\":{\"ttlAfterFinished\":\"0s\"}}")
        .await
        .success();
    space.wait("task/stays", "delete", "60s").await;
}
