//! Installation check: first agents and tasks, columns, logs, `helm test`, `kubectl explain`.

use rota_e2e::{Control, Space, run, until};
use std::time::Duration;

const TEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Splits a table into rows of fields.
fn rows(table: &str) -> Vec<Vec<String>> {
    table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn scripted_task_succeeds() {
    let space = Space::new("first").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, maxReplicas: 2, idleTimeout: 1s}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata:
  name: hello
  annotations: {rota.dev/traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01}
spec:
  agent: actor
  runtime:
    scripted:
      steps:
        - message: I begin.
        - output: a line of output
        - usage: {inputTokens: 1200, outputTokens: 34, costUsd: '0.0125'}
        - succeed: Done.
",
        )
        .await;
    space.wait("task/hello", "condition=Complete", "600s").await;

    let task = space.get("task hello").await;
    let status = &task["status"];
    assert_eq!(status["phase"], "Succeeded", "{status}");
    assert_eq!(status["attempt"], 1);
    assert_eq!(status["traceId"], "0af7651916cd43dd8448eb211c80319c", "the caller's trace continues");
    assert_eq!(status["usage"]["costUsd"], "0.0125");
    assert_eq!(status["usage"]["inputTokens"], 1200);
    assert_eq!(status["resultPreview"], "Done.");
    assert_eq!(status["taskId"], task["metadata"]["uid"]);
    assert_eq!(status["observedGeneration"], task["metadata"]["generation"]);

    let worker = status["worker"].as_str().unwrap().to_owned();
    let tasks = rows(&space.kubectl("get tasks.rota.dev").await.success());
    assert_eq!(tasks[0], ["NAME", "PHASE", "WORKER", "ATTEMPT", "COST", "AGE", "REASON"]);
    assert_eq!(tasks[1][..5], ["hello", "Succeeded", &worker, "1", "0.0125"]);
    let agents = rows(&space.kubectl("get rag").await.success());
    assert_eq!(agents[0], ["NAME", "READY", "BUSY", "IDLE", "QUEUED", "FLOOR", "CEILING", "AGE", "REASON"]);
    assert_eq!(agents[1][5..7], ["0", "2"]);
    let both = space.kubectl("get rota").await.success();
    assert!(both.contains("agent.rota.dev/actor") && both.contains("task.rota.dev/hello"), "{both}");

    // The pool scales to zero; the log of the task is kept.
    until("the worker's pod is deleted", TEST_TIMEOUT, async || space.pods.now().is_empty().then_some(()))
        .await;
    let control = Control::connect().await;
    let logs = control.rota(&format!("logs hello --namespace {}", space.name)).await.success();
    assert!(logs.contains("I begin.") && logs.contains("a line of output"), "{logs}");
    assert_eq!(space.pods.forced_exits(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn command_task_succeeds() {
    let space = Space::new("command").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {shell: 'tr a-z A-Z; echo \"$WHO\" >&2; git --version'}}, maxReplicas: 1, idleTimeout: 1s, overrides: All}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: shout}
spec: {agent: shell, prompt: quietly, environment: {WHO: user}}
",
        )
        .await;
    space.wait("task/shout", "condition=Complete", "600s").await;
    let preview = space.field("task/shout", ".status.resultPreview").await;
    assert!(preview.contains("QUIETLY") && preview.contains("git version"), "{preview}");
    let control = Control::connect().await;
    let logs = control.rota(&format!("logs shout --namespace {}", space.name)).await.success();
    assert!(logs.contains("user"), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn helm_test_succeeds() {
    let output = run("helm test rota --namespace rota --timeout 10m").await.success();
    assert!(output.contains("Phase:          Succeeded"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn fields_are_explained() {
    for (field, description) in [
        ("agents.rota.dev", "Kind of worker"),
        ("agents.rota.dev.spec.replicas", "Minimum number of workers"),
        ("agents.rota.dev.spec.pod.image", "Image of the worker container"),
        ("tasks.rota.dev.spec.isolation", "Isolation of a task from other tasks"),
        ("tasks.rota.dev.status.phase", "Summary of the conditions"),
    ] {
        let output = run(&format!("kubectl explain {field}")).await.success();
        assert!(output.contains(description), "{field}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn second_release_needs_another_class_or_namespaces() {
    let install = async |settings: &str| {
        // Renders with access to the cluster, and creates nothing.
        let line = "helm install twin charts/rota --namespace rota-twin --dry-run=server \
                    --set image.repository=rota,worker.image.repository=rota-worker";
        run(&format!("{line} {settings}")).await
    };
    for namespaces in ["", "--set operator.watchNamespaces={default}"] {
        let refused = install(namespaces).await.failure();
        assert!(refused.contains("the release rota in the namespace rota already reconciles"), "{refused}");
        assert!(refused.contains("set class to another name"), "{refused}");
        install(&format!("--set class=blue {namespaces}")).await.success();
    }
}
