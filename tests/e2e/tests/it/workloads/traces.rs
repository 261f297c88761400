//! One trace from the client that applied a Task to the program of its attempt, exported to a collector on this machine.

use rota_e2e::{Audit, RELEASE, Space, run};
use rota_testkit::collector::{self, Collector};

const AGENT: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: teller}
spec:
  runtime:
    command:
      shell: |
        echo '{\"toolCall\": {\"callId\": \"1\", \"tool\": \"search\"}}' > $ROTA_EVENTS
        echo '{\"toolResult\": {\"callId\": \"1\", \"output\": \"found\"}}' > $ROTA_EVENTS
        echo $TRACEPARENT
  maxReplicas: 1
";

/// Disables the export when dropped.
struct ExportGuard;

impl Drop for ExportGuard {
    fn drop(&mut self) {
        let line = ["--namespace", RELEASE, "rollback", "rota", "--wait", "--timeout", "5m"];
        if let Err(error) = std::process::Command::new("helm").args(line).output() {
            eprintln!("failed to disable the export of spans: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn trace_spans_manifest_to_program() {
    if Audit::start().is_none() {
        eprintln!("skipped: pods of this cluster cannot reach this machine");
        return;
    }
    let addresses = "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}";
    let address = run(&format!("kubectl get nodes -o {addresses}")).await.success();
    let collector = Collector::start_at(address.parse().unwrap()).unwrap();
    let variable = |part: &str| {
        let set = format!("{part}.extraEnv[0]");
        format!("--set {set}.name=OTEL_EXPORTER_OTLP_ENDPOINT --set {set}.value={}", collector.endpoint())
    };
    let settings = format!("{} {}", variable("server"), variable("operator"));
    let _guard = ExportGuard;
    let upgrade = format!("helm -n {RELEASE} upgrade rota charts/rota --reuse-values {settings}");
    run(&format!("{upgrade} --wait --timeout 5m")).await.success();

    let space = Space::new("traces").await;
    let (trace, caller) = (uuid::Uuid::new_v4().simple().to_string(), "00f067aa0ba902b7");
    space
        .apply(&format!(
            "{AGENT}---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata:
  name: traced
  annotations: {{rota.dev/traceparent: 00-{trace}-{caller}-01}}
spec: {{agent: teller}}
"
        ))
        .await;
    space.wait("task/traced", "condition=Complete", "180s").await;
    assert_eq!(space.field("task/traced", ".status.traceId").await, trace);

    let spans = collector.trace(&trace, 6).await.unwrap();
    assert_eq!(
        collector::tree(&spans, caller).unwrap(),
        "client rota.v1.TaskService/CreateTask
  server rota.v1.TaskService/CreateTask
    task succeeded
      queue
      attempt 1 succeeded
        tool"
    );
    let by = |name: &str, side: Option<&str>| {
        let one = spans.iter().find(|span| span.name == name && span.side == side).unwrap();
        one.service.clone()
    };
    let call = "rota.v1.TaskService/CreateTask";
    assert_eq!(by(call, Some("client")), "rota-operator");
    assert_eq!(by(call, Some("server")), "rota-server");
    assert_eq!(by("tool", None), "rota-worker");
    let attempt = collector::named(&spans, "attempt").unwrap();
    let printed = space.field("task/traced", ".status.resultPreview").await;
    assert_eq!(printed.trim(), format!("00-{trace}-{}-01", attempt.id));
}
