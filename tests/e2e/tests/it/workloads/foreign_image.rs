//! Workers in an image without Rota, and with what a template adds to their pods.

use std::time::Duration;

use rota_e2e::{Space, until};

const TEST_TIMEOUT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn any_image_can_be_a_workers() {
    let space = Space::new("foreign").await;
    // The image has a shell and not a single library. The namespace enforces the restricted Pod Security Standard.
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec:
  runtime: {command: {shell: 'busybox cat /prepared/note'}}
  maxReplicas: 1
  idleTimeout: 1s
  pod:
    image: rota-foreign:dev
    imagePullPolicy: Never
    template:
      metadata: {labels: {team: tests}}
      spec:
        volumes: [{name: prepared, emptyDir: {}}]
        initContainers:
          - name: prepare
            image: rota-foreign:dev
            imagePullPolicy: Never
            command: [sh, -c, 'echo welcome > /prepared/note']
            volumeMounts: [{name: prepared, mountPath: /prepared}]
            securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          # A sidecar: an init container that stays.
          - name: beacon
            image: rota-foreign:dev
            imagePullPolicy: Never
            restartPolicy: Always
            command: [sh, -c, 'trap exit TERM; while :; do busybox sleep 1; done']
            securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        containers:
          - name: worker
            env: [{name: PLACE, value: roster}]
            volumeMounts: [{name: prepared, mountPath: /prepared, readOnly: true}]
        topologySpreadConstraints:
          - maxSkew: 1
            topologyKey: kubernetes.io/hostname
            whenUnsatisfiable: ScheduleAnyway
            labelSelector: {matchLabels: {team: tests}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: first}
spec: {agent: shell}
",
        )
        .await;
    space.wait("task/first", "condition=Complete", "180s").await;
    assert_eq!(space.field("task/first", ".status.resultPreview").await.trim(), "welcome");
    // An idle worker ends, and its sidecar with it.
    until("the pod is deleted", TEST_TIMEOUT, async || space.pods.now().is_empty().then_some(())).await;
    let spec = space.pods.all()[0].spec.clone().unwrap();
    let environment = spec.containers[0].env.clone().unwrap();
    assert!(environment.iter().any(|variable| variable.name == "PLACE"));
    assert_eq!(spec.topology_spread_constraints.unwrap().len(), 1);
    let names: Vec<_> = spec.init_containers.unwrap().into_iter().map(|container| container.name).collect();
    assert_eq!(names, ["rota-install", "prepare", "beacon"]);
    assert_eq!(space.pods.forced_exits(), [""; 0], "{}", space.pods.history());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn invalid_template_is_refused_with_its_field() {
    let space = Space::new("template").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {scripted: {}}, pod: {template: {spec: {nodes: []}}}}
",
        )
        .await;
    space.wait("agent/shell", "condition=Accepted=False", "60s").await;
    let message = space.field("agent/shell", ".status.conditions[?(@.type==\"Accepted\")].message").await;
    assert!(message.contains("spec.pod.template.spec.nodes: is no field of Kubernetes"), "{message}");
}
