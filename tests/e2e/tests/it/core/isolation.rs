//! Tasks with a pod of their own.

use std::time::Duration;

use kube::ResourceExt;
use rota_e2e::{Space, until};

const TEST_TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn isolated_task_has_its_own_pod() {
    let space = Space::new("alone").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {shell: 'touch /scratch/here && echo alone'}}, maxReplicas: 2}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: alone}
spec:
  agent: shell
  isolation: Pod
  podOverrides:
    resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 192Mi}}
    nodeSelector: {kubernetes.io/os: linux}
    volumes: [{name: scratch, emptyDir: {medium: Memory, sizeLimit: 8Mi}}]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
",
        )
        .await;
    space.wait("task/alone", "condition=Complete", "600s").await;
    until("its pod is deleted", TEST_TIMEOUT, async || space.pods.now().is_empty().then_some(())).await;
    let pods = space.pods.all();
    assert_eq!(pods.len(), 1, "no shared worker was started for it: {}", space.pods.history());
    let task = space.get("task alone").await;
    assert_eq!(
        pods[0].labels().get("rota.dev/task-uid").map(String::as_str),
        task["metadata"]["uid"].as_str()
    );
    assert_eq!(pods[0].name_any(), task["status"]["worker"]);
    let spec = pods[0].spec.clone().unwrap();
    assert_eq!(spec.node_selector.unwrap()["kubernetes.io/os"], "linux");
    let limits = spec.containers[0].resources.clone().and_then(|all| all.limits).unwrap();
    assert_eq!(limits["memory"].0, "192Mi");
    assert_eq!(task["status"]["resultPreview"].as_str().unwrap().trim(), "alone");
    assert_eq!(space.pods.forced_exits(), [""; 0], "{}", space.pods.history());
}
