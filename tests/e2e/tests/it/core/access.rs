//! `rota --kube`: the control plane of the cluster, by the rights of a kubeconfig, through the real API server.

use rota_e2e::{RELEASE, Space, rota_with_kubeconfig};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn kubeconfig_reaches_the_control_plane() {
    let space = Space::new("access").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, maxReplicas: 1, idleTimeout: 1s}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: hello}
spec:
  agent: actor
  runtime:
    scripted:
      steps:
        - message: I begin.
        - succeed: Done.
",
        )
        .await;
    let place = format!("--namespace {} --kube-namespace {RELEASE} --kube-release {RELEASE}", space.name);
    space.wait("task/hello", "condition=Complete", "600s").await;
    let logs = rota_with_kubeconfig(&format!("logs hello {place}")).await.success();
    assert!(logs.contains("I begin."), "{logs}");
    let result = rota_with_kubeconfig(&format!("result hello {place}")).await.success();
    assert!(result.contains("Done."), "{result}");

    let elsewhere = format!("get tasks --kube-namespace {}", space.name);
    let missing = rota_with_kubeconfig(&elsewhere).await.failure();
    assert!(missing.contains("no Service of a control plane"), "{missing}");
    let unknown = rota_with_kubeconfig("get tasks --kube-context missing").await.failure();
    assert!(unknown.contains("failed to use the kubeconfig"), "{unknown}");
}
