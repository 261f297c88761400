//! Pods of various agents and tasks.

use super::*;

pub(crate) fn agent(spec: &str) -> Agent {
    let text = format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: coder, namespace: team, uid: u1}}
spec: {spec}
"
    );
    serde_saphyr::from_str(&text).unwrap()
}

fn options() -> WorkerOptions {
    WorkerOptions {
        image: "rota:1".into(),
        image_pull_policy: None,
        endpoint: "https://rota.r.svc:7420".into(),
        collector: vec![("OTEL_EXPORTER_OTLP_ENDPOINT".into(), "http://collector:4318".into())],
    }
}

fn build(agent: &Agent, task: Option<TaskPod<'_>>) -> Pod {
    PodSpecInput { agent, options: &options(), task }.pod().unwrap()
}

#[test]
fn pod_is_confined_and_identifies_itself() {
    let agent = agent("{runtime: {scripted: {}}, slots: 3}");
    let pod = build(&agent, None);
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("coder-"));
    assert_eq!(pod.owner_references()[0].uid, "u1");
    let spec = pod.spec.unwrap();
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    assert_eq!(spec.termination_grace_period_seconds, Some(600));
    let container = &spec.containers[0];
    let arguments = container.args.clone().unwrap().join(" ");
    assert_eq!(
        arguments,
        "worker --worker $(POD_NAME) --instance $(POD_UID) --agent coder --slots 3 --state-dir /var/lib/rota \
             --drain-timeout 580s"
    );
    let context = container.security_context.clone().unwrap();
    assert_eq!(context.read_only_root_filesystem, Some(true));
    assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"]);
}

#[test]
fn pod_follows_the_agents_template() {
    let agent = agent(
            "{runtime: {scripted: {}}, secrets: [{name: KEY, secretName: model, key: k}],
              pod: {image: 'mine:2', imagePullPolicy: Never, labels: {team: x, rota.dev/agent: evil},
                    nodeSelector: {a: b}, tolerations: [{key: gpu, operator: Exists}],
                    resources: {limits: {memory: 1Gi}}, terminationGracePeriod: 30s,
                    volumes: [{name: cache, emptyDir: {}}], volumeMounts: [{name: cache, mountPath: /cache}]}}",
        );
    let pod = build(&agent, None);
    assert_eq!(pod.labels()["team"], "x");
    assert_eq!(pod.labels()[AGENT], "coder", "labels of the operator win");
    let spec = pod.spec.unwrap();
    let container = &spec.containers[0];
    assert_eq!(container.image.as_deref(), Some("mine:2"));
    let arguments = container.args.clone().unwrap().join(" ");
    assert!(arguments.contains("--drain-timeout 15s --secrets-dir"), "{arguments}");
    assert!(arguments.ends_with("--allow-write /cache"), "attempts may use it: {arguments}");
    assert_eq!(spec.tolerations.unwrap().len(), 1);
    assert_eq!(spec.volumes.unwrap().len(), 6);
}

#[test]
fn hash_covers_only_what_pods_see() {
    let hash =
        |spec: &str| PodSpecInput { agent: &agent(spec), options: &options(), task: None }.hash().unwrap();
    let first = hash("{runtime: {scripted: {}}}");
    assert_eq!(first, hash("{runtime: {scripted: {seed: 1}}, replicas: 3, maxReplicas: 9}"));
    assert_ne!(first, hash("{runtime: {scripted: {}}, slots: 2}"));
    assert_ne!(first, hash("{runtime: {scripted: {}}, pod: {image: 'x:1'}}"));
    assert_ne!(first, hash("{runtime: {scripted: {}}, pod: {labels: {a: b}}}"));
}

#[test]
fn task_pod_applies_overrides() {
    let agent =
        agent("{runtime: {scripted: {}}, slots: 9, pod: {nodeSelector: {a: b}, serviceAccountName: s}}");
    let task: Task = serde_saphyr::from_str(
        "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: t, namespace: team, uid: u2}
spec: {agent: coder, isolation: Pod, podOverrides: {nodeSelector: {c: d}}}
",
    )
    .unwrap();
    let pod = build(&agent, Some(TaskPod { id: "u2", resource: Some(&task) }));
    assert_eq!(pod.owner_references()[0].kind, "Task");
    assert_eq!(pod.labels()[TASK_UID], "u2");
    let spec = pod.spec.unwrap();
    assert_eq!(spec.node_selector.unwrap().len(), 2);
    assert_eq!(spec.service_account_name.as_deref(), Some("s"));
    let arguments = spec.containers[0].args.clone().unwrap().join(" ");
    assert!(arguments.contains("--slots 1") && arguments.ends_with("--isolated-task u2"), "{arguments}");
}

#[test]
fn invalid_kubernetes_fields_are_named() {
    let agent = agent("{runtime: {scripted: {}}, pod: {resources: {limits: 3}}}");
    let error = PodSpecInput { agent: &agent, options: &options(), task: None }.pod().unwrap_err();
    assert!(error.0.starts_with("spec.pod.resources: "), "{}", error.0);
}

#[test]
fn name_prefix_leaves_room_for_suffix() {
    let long = "a".repeat(63);
    assert_eq!(name_prefix(&long).len() + 5, 63);
    assert_eq!(name_prefix("a.b-"), "a.b-");
}
