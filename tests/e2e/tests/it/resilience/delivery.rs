//! Work that comes out although its node is drained in the middle: the real Claude Code CLI, git, and artifacts in an S3 server.

use std::time::Duration;

use rota_e2e::{Control, MODEL, RELEASE, Space, run, run_with, until};
use serde_json::Value;

use super::TEST_TIMEOUT;
use super::drain::Cordoned;

pub(super) const SITE: &str = "apiVersion: v1
kind: Pod
metadata: {name: site, labels: {app: site}}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: site
      image: rota-site:dev
      args: [/tmp]
      ports: [{containerPort: 8080}, {containerPort: 9000}]
      readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: site}
spec: {selector: {app: site}, ports: [{name: git, port: 8080}, {name: s3, port: 9000}]}
";

const AGENT: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: claude}
spec:
  runtime: {claude: {model: haiku, tools: [Bash], allowedTools: [Bash], permissionPolicy: Deny}}
  environment: {ANTHROPIC_BASE_URL: 'http://model:8787'}
  secrets: [{name: ANTHROPIC_API_KEY, secretName: model-key, key: key}]
  maxReplicas: 1
  pod: {terminationGracePeriod: 40s}
";

const TASK: &str = r#"apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: fix}
spec:
  agent: claude
  workspace: {git: {url: 'http://site:8080/project.git', push: {}}}
  prompt: |
    Write and read. MOCK[
      {"text": "First I write.", "tools": [{"name": "Bash", "input": {"command": "echo half > file.txt"}}]},
      {"tools": [{"name": "Bash", "input": {"command": "until test -e /tmp/go; do sleep 0.2; done"}}]},
      {"tools": [{"name": "Bash", "input": {"command": "cat file.txt"}}]},
      {"text": "It is all there: {{tool_result}}"}
    ]
"#;

/// Release whose values were changed: the earlier ones come back when this is dropped.
struct Changed;

impl Drop for Changed {
    fn drop(&mut self) {
        let line = ["--namespace", RELEASE, "rollback", "rota", "--wait", "--timeout", "5m"];
        if let Err(error) = std::process::Command::new("helm").args(line).output() {
            eprintln!("failed to roll the release back: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn drained_conversations_continue_and_are_delivered() {
    let space = Space::new("delivery").await;
    space.apply(&format!("{SITE}---\n{MODEL}")).await;
    for pod in ["pod/site", "pod/model"] {
        space.wait(pod, "condition=Ready", "120s").await;
    }
    let secret = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: artifacts, namespace: {RELEASE}}}
stringData:
  AWS_ACCESS_KEY_ID: {}
  AWS_SECRET_ACCESS_KEY: {}
  AWS_REGION: us-east-1
  AWS_ENDPOINT: http://site.{}:9000
  AWS_ALLOW_HTTP: 'true'
",
        rota_testkit::s3_server::ACCESS_KEY,
        rota_testkit::s3_server::SECRET_KEY,
        space.name
    );
    run_with("kubectl apply --server-side -f -", &secret).await.success();
    let values = "--set server.artifacts.url=s3://rota/e2e --set server.artifacts.existingSecret=artifacts";
    let upgrade = format!("upgrade rota charts/rota --reuse-values {values} --wait --timeout 5m");
    let changed = Changed;
    run(&format!("helm --namespace {RELEASE} {upgrade}")).await.success();

    space.apply(&format!("{AGENT}---\n{TASK}")).await;
    space.wait("task/fix", "condition=Running", "180s").await;
    let messages = async || {
        let path = format!("/api/v1/namespaces/{}/services/model:8787/proxy/debug/requests", space.name);
        let text = run(&format!("kubectl get --raw {path}")).await.success();
        let seen: Value = serde_json::from_str(&text).unwrap();
        let steps = seen["requests"].as_array().cloned().unwrap_or_default();
        steps.iter().filter_map(|request| request["step"].as_u64()).collect::<Vec<_>>()
    };
    until("the agent is in the middle", TEST_TIMEOUT, async || messages().await.contains(&1).then_some(()))
        .await;
    let worker = space.field("task/fix", ".status.worker").await;
    let node = space.field(&format!("pod/{worker}"), ".spec.nodeName").await;
    let cordoned = Cordoned(node.clone());
    let selector = "--pod-selector=rota.dev/role=worker --delete-emptydir-data --timeout=240s";
    run(&format!("kubectl drain {node} {selector}")).await.success();
    drop(cordoned);

    let next = until("another worker has the task", TEST_TIMEOUT, async || {
        let next = space.field("task/fix", ".status.worker").await;
        (!next.is_empty() && next != worker).then_some(next)
    })
    .await;
    until("the other worker runs", Duration::from_secs(60), async || {
        let done = space.sh(&next, "touch /tmp/go").await;
        (done.ok).then_some(())
    })
    .await;
    space.wait("task/fix", "condition=Complete", "180s").await;
    let status = space.get("task fix").await["status"].take();
    assert_eq!(status["resultPreview"].as_str().map(str::trim), Some("It is all there: half"), "{status}");
    // No step of the conversation was asked for again, but the one that was cut off.
    let steps = messages().await;
    assert_eq!(steps.iter().filter(|step| **step == 0).count(), 1, "{steps:?}");

    let control = Control::connect().await;
    let diff = control.rota(&format!("diff fix --namespace {}", space.name)).await.success();
    assert!(diff.contains("+half"), "{diff}");
    let pushed =
        space.sh("site", "git -C /tmp/repositories/project.git log --all --format=%D -1 -- file.txt").await;
    assert!(pushed.success().contains("rota/"), "the branch of the task");
    let kept = space.sh("site", "find /tmp/objects/rota/e2e -type f | wc -l").await.success();
    assert!(kept.trim().parse::<usize>().unwrap() > 0, "objects in the bucket");
    drop(changed);
}
