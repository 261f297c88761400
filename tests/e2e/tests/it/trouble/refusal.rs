//! Pods that the cluster refuses: a quota, a policy that denies them, and a webhook that cannot be reached.

use rota_e2e::{Space, run, run_with, until};

use super::{TEST_TIMEOUT, agent, event_with, field_with};

/// Pod that the restricted security of the namespace admits.
const PROBE: &str = "apiVersion: v1
kind: Pod
metadata: {name: probe}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: probe
      image: probe
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

/// Objects outside of a namespace, which are deleted when dropped.
struct Deleted(&'static [&'static str]);

impl Drop for Deleted {
    fn drop(&mut self) {
        let all = [&["delete", "--ignore-not-found"], self.0].concat();
        if let Err(error) = std::process::Command::new("kubectl").args(all).output() {
            eprintln!("failed to delete {:?}: {error}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn quota_is_named_and_the_pool_recovers() {
    let space = Space::new("quota").await;
    space.kubectl("create quota none --hard=pods=0").await.success();
    space.apply(&agent("echo over", "replicas: 0")).await;
    let message = field_with(&space, "agent/shell", ".status.message", "exceeded quota").await;
    println!("agent: {message}");
    field_with(&space, "task/first", ".status.message", "exceeded quota").await;
    event_with(&space, "exceeded quota").await;
    space.kubectl("delete quota none").await.success();
    space.wait("task/first", "condition=Complete", "240s").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn unreachable_webhook_is_named_and_the_pool_recovers() {
    let space = Space::new("webhook").await;
    let _webhook = Deleted(&["validatingwebhookconfiguration/rota-e2e-unreachable"]);
    let name = &space.name;
    // A webhook whose service does not exist.
    run_with(
        "kubectl apply -f -",
        &format!(
            "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {{name: rota-e2e-unreachable}}
webhooks:
  - name: pods.rota-e2e.example
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Fail
    timeoutSeconds: 2
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}
    rules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}}]
    clientConfig: {{service: {{name: missing, namespace: {name}}}}}
"
        ),
    )
    .await
    .success();
    space.apply(&agent("echo over", "replicas: 0")).await;
    let message = field_with(&space, "agent/shell", ".status.message", "pods.rota-e2e.example").await;
    println!("agent: {message}");
    field_with(&space, "task/first", ".status.message", "pods.rota-e2e.example").await;
    run("kubectl delete validatingwebhookconfiguration rota-e2e-unreachable").await.success();
    space.wait("task/first", "condition=Complete", "240s").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn denied_pods_are_named_and_the_pool_recovers() {
    const BINDING: &str = "validatingadmissionpolicybinding/rota-e2e-denied";
    let space = Space::new("denied").await;
    let _policy = Deleted(&["validatingadmissionpolicy/rota-e2e-denied", BINDING]);
    // Denies as a webhook would that answers.
    let name = &space.name;
    let policy = format!(
        "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: rota-e2e-denied}}
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}
    resourceRules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}}]
  validations: [{{expression: 'false', message: pods of agents are not welcome}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: rota-e2e-denied}}
spec: {{policyName: rota-e2e-denied, validationActions: [Deny]}}
"
    );
    run_with("kubectl apply -f -", &policy).await.success();
    until("the policy denies pods", TEST_TIMEOUT, async || {
        let create = format!("kubectl --namespace {name} create --dry-run=server -f -");
        run_with(&create, PROBE).await.stderr.contains("not welcome").then_some(())
    })
    .await;
    space.apply(&agent("echo over", "replicas: 0")).await;
    let message = field_with(&space, "agent/shell", ".status.message", "not welcome").await;
    println!("agent: {message}");
    field_with(&space, "task/first", ".status.message", "not welcome").await;
    event_with(&space, "not welcome").await;
    run(&format!("kubectl delete {BINDING}")).await.success();
    space.wait("task/first", "condition=Complete", "240s").await;
}
