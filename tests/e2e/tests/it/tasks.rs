//! What a task may ask for: a pod of its own, some of its agent's secrets, to be gone after its end, to wait.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rota_e2e::{Control, Space, until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn tasks_in_a_pod_of_their_own() {
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
    space.wait("task/alone", "condition=Complete", "180s").await;
    until("its pod is gone", LIMIT, async || space.pods.now().is_empty().then_some(())).await;
    let pods = space.pods.ever();
    assert_eq!(pods.len(), 1, "no shared worker was started for it: {}", space.pods.story());
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
    assert_eq!(space.pods.ended_by_force(), [""; 0], "{}", space.pods.story());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn tasks_choose_among_secrets_on_a_warm_worker() {
    let space = Space::new("secrets").await;
    space.kubectl("create secret generic keys --from-literal=one=aaa --from-literal=two=bbbb").await.good();
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec:
  runtime: {command: {shell: 'echo ONE=${#ONE} TWO=${#TWO} OWN=$OWN'}}
  replicas: 1
  maxReplicas: 1
  secrets: [{name: ONE, secretName: keys, key: one}, {name: TWO, secretName: keys, key: two}]
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: all}
spec: {agent: shell}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: one}
spec: {agent: shell, secretNames: [ONE], environment: {OWN: mine}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: none}
spec: {agent: shell, secretNames: []}
",
        )
        .await;
    space.wait("tasks.rota.dev --all", "condition=Complete", "180s").await;
    for (task, said) in
        [("all", "ONE=3 TWO=4 OWN="), ("one", "ONE=3 TWO=0 OWN=mine"), ("none", "ONE=0 TWO=0 OWN=")]
    {
        assert_eq!(
            space.field(&format!("task/{task}"), ".status.resultPreview").await.trim(),
            said,
            "{task}"
        );
    }
    assert_eq!(space.pods.ever().len(), 1, "one warm worker did all");

    // One that the agent does not have is refused in words.
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: other}
spec: {agent: shell, secretNames: [THREE]}
",
        )
        .await;
    space.wait("task/other", "condition=Failed", "60s").await;
    let message = space.field("task/other", ".status.message").await;
    assert!(message.contains("THREE"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn tasks_go_after_their_end_and_their_records_stay() {
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
    let said = control.rota(&format!("get tasks brief --namespace {} -o json", space.name)).await.good();
    assert!(said.contains("TASK_STATE_SUCCEEDED"), "{said}");
    // It may be set later too.
    space.kubectl("patch task stays --type=merge -p {\"spec\":{\"ttlAfterFinished\":\"0s\"}}").await.good();
    space.wait("task/stays", "delete", "60s").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn tasks_wait_and_overtake() {
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
spec: {runtime: {command: {shell: 'cat'}}, replicas: 1, maxReplicas: 1}
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
    space.kubectl("patch task raised --type=merge -p {\"spec\":{\"priority\":\"URGENT\"}}").await.good();
    let control = Control::connect().await;
    let raised = format!("get tasks raised --namespace {} -o json", space.name);
    until("the control plane knows its priority", LIMIT, async || {
        let said: Value = serde_json::from_str(&control.rota(&raised).await.good()).unwrap();
        (said["tasks"][0]["priority"] == 10 || said["priority"] == 10).then_some(())
    })
    .await;
    let worker = space.field("task/first", ".status.worker").await;
    space.sh(&worker, "touch /tmp/go").await.good();
    space.wait("task/first task/low task/raised", "condition=Complete", "120s").await;
    let started = async |name: &str| space.field(&format!("task/{name}"), ".status.startTime").await;
    assert!(started("raised").await <= started("low").await);
    // Everything else is done, and the held one was not touched.
    assert_eq!(space.field("task/held", ".status.phase").await, "Pending");
    space.kubectl("patch task held --type=merge -p {\"spec\":{\"desiredState\":\"Run\"}}").await.good();
    space.wait("task/held", "condition=Complete", "60s").await;
}

fn waiting_reason(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.first()?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn tasks_say_why_their_agent_cannot_start() {
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
    until("the image is not found", LIMIT, async || {
        space
            .pods
            .now()
            .iter()
            .any(|pod| waiting_reason(pod).is_some_and(|why| why.contains("Image")))
            .then_some(())
    })
    .await;
    let told = until("the agent says so", LIMIT, async || {
        let message = space.field("agent/nowhere", ".status.message").await;
        message.contains("nowhere.invalid").then_some(message)
    })
    .await;
    space.wait("agent/nowhere", "condition=Ready=False", "10s").await;
    let on_task = until("the task says so", LIMIT, async || {
        let message = space.field("task/waits", ".status.message").await;
        message.contains("nowhere.invalid").then_some(message)
    })
    .await;
    println!("agent: {told}\ntask:  {on_task}");

    // With an image that is there, it goes on by itself.
    space
        .kubectl("patch agent nowhere --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/pod\"}]")
        .await
        .good();
    space.wait("task/waits", "condition=Complete", "180s").await;
    until("the agent is content", LIMIT, async || {
        space.field("agent/nowhere", ".status.message").await.is_empty().then_some(())
    })
    .await;
}
