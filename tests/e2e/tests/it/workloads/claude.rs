//! The Claude Code CLI in a worker pod, against a scripted model API in another pod.

use rota_e2e::{Control, MODEL, Space, run};
use serde_json::{Value, json};

const AGENT: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: claude}
spec:
  runtime:
    claude:
      model: haiku
      tools: [Bash, Read, Write]
      allowedTools: ['Bash(wc *)', Read]
      permissionMode: acceptEdits
      permissionPolicy: Deny
  environment: {ANTHROPIC_BASE_URL: 'http://model:8787'}
  secrets: [{name: ANTHROPIC_API_KEY, secretName: model-key, key: key}]
  maxReplicas: 1
  idleTimeout: 5m
  defaultLimits: {timeout: 5m, maxTurns: 12, budgetUsd: '0.25'}
";

const TASK: &str = r##"apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: letter}
spec:
  agent: claude
  prompt: |
    Write a letter and count its lines. The model is busy once before it answers.
    MOCK[
      {"fail": {"status": 529},
       "tools": [{"name": "Write", "input": {"file_path": "letter.txt", "content": "Dear reader,\nthis is all.\n"}}]},
      {"text": "I will count.", "tools": [{"name": "Bash", "input": {"command": "wc -l letter.txt"}}]},
      {"text": "It has so many lines: {{tool_result}}"}
    ]
"##;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn claude_completes_a_task() {
    let space = Space::new("claude").await;
    space.apply(MODEL).await;
    space.wait("pod/model", "condition=Ready", "120s").await;
    space.apply(AGENT).await;
    space.apply(TASK).await;
    space.wait("task/letter", "condition=Complete", "300s").await;

    // Its worker is still there. It runs without root, so that the kernel confines its attempts.
    space.wait("agent/claude", "condition=Isolated", "60s").await;

    let status = space.get("task letter").await["status"].take();
    assert_eq!(status["attempt"], 1, "{status}");
    assert!(status["resultPreview"].as_str().unwrap().contains("2 letter.txt"), "{status}");
    let usage = &status["usage"];
    assert!(usage["inputTokens"].as_i64() > Some(0) && usage["outputTokens"].as_i64() > Some(0), "{usage}");
    assert_eq!(status["traceId"].as_str().map(str::len), Some(32), "{status}");
    let cost: f64 = usage["costUsd"].as_str().unwrap().parse().unwrap();
    assert!(cost > 0.0, "{usage}");

    let control = Control::connect().await;
    let logs = control.rota(&format!("logs letter --namespace {}", space.name)).await.success();
    assert!(logs.contains("I will count.") && logs.contains("wc -l letter.txt"), "{logs}");

    // The model was called with the agent's key, and again after it was overloaded.
    let path = format!("/api/v1/namespaces/{}/services/model:8787/proxy/debug/requests", space.name);
    let seen: Value =
        serde_json::from_str(&run(&format!("kubectl get --raw {path}")).await.success()).unwrap();
    let counts = &seen["counts"]["by_status"];
    assert_eq!((&counts["529"], &counts["200"]), (&json!(1), &json!(3)), "{seen}");
    let credentials: Vec<_> = seen["requests"].as_array().unwrap().iter().map(|one| &one["auth"]).collect();
    assert!(credentials.iter().all(|credential| **credential == "api_key"), "{credentials:?}");
    println!("the CLI made {} requests, for {} dollars", credentials.len(), usage["costUsd"]);
}
