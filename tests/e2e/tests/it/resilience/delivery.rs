//! Work that comes out although its node is drained, and its CLI killed, in the middle: the real Claude Code CLI, checks that fail first, git,
//! a pull request, and artifacts in an S3 server.

use std::time::Duration;

use rota_e2e::{Control, MODEL, RELEASE, Space, run, run_with, until};
use serde_json::{Value, json};

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
      ports: [{containerPort: 8080}, {containerPort: 8090}, {containerPort: 9000}]
      readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: site}
spec: {selector: {app: site}, ports: [{name: git, port: 8080}, {name: forge, port: 8090}, {name: s3, port: 9000}]}
";

const AGENT: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: claude}
spec:
  runtime: {claude: {model: claude-opus-5-5, tools: [Bash], allowedTools: [Bash], permissionPolicy: Deny}}
  environment: {ANTHROPIC_BASE_URL: 'http://model:8787'}
  secrets:
    - {name: ANTHROPIC_API_KEY, secretName: model-key, key: key}
    - {name: FORGE, secretName: forge, key: token}
  overrides: All
  maxReplicas: 1
  pod: {terminationGracePeriod: 40s}
";

const TASK: &str = r#"apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: fix}
spec:
  agent: claude
  title: Write and read
  workspace:
    git:
      url: http://site:8080/team/project.git
      push: {pullRequest: {provider: Gitea, apiUrl: 'http://site:8090/api/v1', tokenFrom: FORGE, labels: [agents]}}
  doneWhen: {commands: [{argv: [grep, whole, file.txt]}]}
  retry: {initialBackoff: 1s}
  prompt: |
    Write and read. MOCK[
      {"text": "First I write.", "tools": [{"name": "Bash", "input": {"command": "echo half > file.txt"}}], USAGE},
      {"tools": [{"name": "Bash", "input": {"command": "until test -e /tmp/drained; do sleep 0.2; done"}}], USAGE},
      {"tools": [{"name": "Bash", "input": {"command": "until test -e /tmp/go; do sleep 0.2; done"}}], USAGE},
      {"tools": [{"name": "Bash", "input": {"command": "cat file.txt"}}], USAGE},
      {"text": "It is all there: {{tool_result}}", USAGE},
      {"tools": [{"name": "Bash", "input": {"command": "echo whole >> file.txt; cat file.txt"}}], USAGE},
      {"text": "Now it is: {{tool_result}}", USAGE}
    ]
"#;

/// Tokens of each answer of the model, and their cost at list prices, in millionths of a dollar.
const USAGE: &str = r#""usage": {"input_tokens": 1000, "output_tokens": 10}"#;
const INPUT: i64 = 1000;
const TURN: i64 = 4_200;

/// Kills the Claude Code CLI in a pod once its tool runs. The brackets keep the command from finding itself.
const KILL_CLI: &str = "touch /tmp/drained; grep -qs 'test -e /tmp/g[o]' /proc/[0-9]*/cmdline || exit 1
    for file in $(grep -ls 'stream-jso[n]' /proc/[0-9]*/cmdline); do pid=${file#/proc/}; kill -9 ${pid%/cmdline} && echo killed; done";

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
    let forge = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: forge}}\nstringData: {{token: {}}}\n",
        rota_testkit::forge::SITE_TOKEN
    );
    space.apply(&forge).await;
    let values = "--set server.artifacts.url=s3://rota/e2e --set server.artifacts.existingSecret=artifacts";
    let upgrade = format!("upgrade rota charts/rota --reuse-values {values} --wait --timeout 5m");
    let changed = Changed;
    run(&format!("helm --namespace {RELEASE} {upgrade}")).await.success();

    space.apply(&format!("{AGENT}---\n{}", TASK.replace("USAGE", USAGE))).await;
    space.wait("task/fix", "condition=Running", "180s").await;
    let requests = async || -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{}/services/model:8787/proxy/debug/requests", space.name);
        let text = run(&format!("kubectl get --raw {path}")).await.success();
        let seen: Value = serde_json::from_str(&text).unwrap();
        seen["requests"].as_array().cloned().unwrap_or_default()
    };
    let messages =
        async || requests().await.iter().filter_map(|request| request["step"].as_u64()).collect::<Vec<_>>();
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
    let attempt =
        async || space.field("task/fix", ".status.attempt").await.parse::<i64>().unwrap_or_default();
    let last = until("the CLI is killed in the middle of the conversation", TEST_TIMEOUT, async || {
        let last = attempt().await;
        let killed = space.sh(&next, KILL_CLI).await;
        killed.stdout.contains("killed").then_some(last)
    })
    .await;
    until("another attempt", TEST_TIMEOUT, async || (attempt().await > last).then_some(())).await;
    until("its worker runs", Duration::from_secs(60), async || {
        let worker = space.field("task/fix", ".status.worker").await;
        if worker.is_empty() {
            return None;
        }
        let done = space.sh(&worker, "touch /tmp/go").await;
        done.ok.then_some(())
    })
    .await;
    space.wait("task/fix", "condition=Complete", "180s").await;
    let status = space.get("task fix").await["status"].take();
    assert_eq!(status["resultPreview"].as_str().map(str::trim), Some("Now it is: half\nwhole"), "{status}");
    // No step of the conversation was asked for again, but those that were cut off.
    let steps = messages().await;
    assert_eq!(steps.iter().filter(|step| **step == 0).count(), 1, "{steps:?}");
    // Each answer is in both books once, but for those that the ends of the CLI have cut off.
    let answers = requests().await;
    let answers = answers.iter().filter(|one| one["route"] == "messages" && one["outcome"] == "answered");
    let answers = i64::try_from(answers.count()).unwrap();
    let usage = &status["usage"];
    let cost = usage["costUsd"].as_str().and_then(|cost| cost.parse::<f64>().ok()).unwrap() * 1e6;
    let (missed, tokens) = (answers * TURN - cost.round() as i64, usage["inputTokens"].as_i64().unwrap());
    assert!(missed.abs() <= TURN && (answers * INPUT - tokens).abs() <= INPUT, "{answers} answers, {usage}");

    let control = Control::connect().await;
    let diff = control.rota(&format!("diff fix --namespace {}", space.name)).await.success();
    assert!(diff.contains("+half") && diff.contains("+whole"), "{diff}");
    let shown = control.rota(&format!("get task fix --namespace {} -o json", space.name)).await.success();
    let task: Value = serde_json::from_str(&shown).unwrap();
    let request = &task["status"]["result"]["delivery"]["pullRequest"];
    assert_eq!((&request["number"], &request["base"]), (&json!("1"), &json!("main")), "{shown}");
    let list = "git -C /tmp/repositories/team/project.git log --all --format=%D -1 -- file.txt";
    let pushed = space.sh("site", list).await;
    assert!(pushed.success().contains("rota/"), "the branch of the task");
    let kept = space.sh("site", "find /tmp/objects/rota/e2e -type f | wc -l").await.success();
    assert!(kept.trim().parse::<usize>().unwrap() > 0, "objects in the bucket");
    drop(changed);
}
