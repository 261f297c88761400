//! Upgrade, rollback, uninstallation and reinstallation of the release.

use std::time::Duration;

use rota_e2e::{Control, RELEASE, Space, run, until};

const TEST_TIMEOUT: Duration = Duration::from_secs(120);

const WAITS: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: steady}
spec:
  runtime: {command: {shell: 'echo begin; until [ -e /tmp/go ]; do sleep 0.2; done; echo end'}}
  maxReplicas: 1
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: long}
spec: {agent: steady}
";

const QUICK: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, maxReplicas: 1}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: quick}
spec:
  agent: actor
  runtime: {scripted: {steps: [{message: hello from before}, {succeed: done}]}}
";

async fn helm(line: &str) -> String {
    run(&format!("helm --namespace {RELEASE} {line}")).await.success()
}

/// Returns the names of objects in the namespace of the release.
async fn names(kind: &str) -> String {
    run(&format!("kubectl -n {RELEASE} get {kind} -o name")).await.success()
}

/// Returns the admin token as the Secret has it.
async fn admin_token() -> String {
    run(&format!("kubectl -n {RELEASE} get secret rota-admin-token -o jsonpath={{.data.token}}"))
        .await
        .success()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn upgrade_and_rollback_interrupt_no_task() {
    let space = Space::new("upgrade").await;
    space.apply(WAITS).await;
    space.wait("task/long", "condition=Running", "180s").await;
    let worker = space.field("task/long", ".status.worker").await;
    let pods = format!("kubectl -n {RELEASE} get pods -l app.kubernetes.io/name=rota -o name");
    let before = run(&pods).await.success();
    let filter = "--set-string log.filter=debug";
    helm(&format!("upgrade rota charts/rota --reuse-values {filter} --wait --timeout 5m")).await;
    // Helm waits for the new ones, and the old ones still end.
    until("all pods are replaced", TEST_TIMEOUT, async || {
        let after = run(&pods).await.success();
        before.lines().all(|pod| !after.contains(pod)).then_some(())
    })
    .await;
    helm("rollback rota --wait --timeout 5m").await;
    assert!(!helm("get values rota").await.contains("debug"));
    let history = helm("history rota").await;
    assert!(history.contains("Rollback to"), "{history}");

    space.sh(&worker, "touch /tmp/go").await.success();
    space.wait("task/long", "condition=Complete", "180s").await;
    assert_eq!(space.field("task/long", ".status.worker").await, worker);
    assert_eq!(space.field("task/long", ".status.attempt").await, "1");
    let logs =
        Control::connect().await.rota(&format!("logs long --namespace {}", space.name)).await.success();
    assert_eq!(logs.lines().filter(|line| *line == "begin").count(), 1, "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn reinstall_keeps_the_records() {
    let space = Space::new("uninstall").await;
    space.apply(QUICK).await;
    space.wait("task/quick", "condition=Complete", "180s").await;
    // Agents first, as documented in the chart.
    space.kubectl("delete agents.rota.dev --all").await.success();
    until("its pods are deleted", TEST_TIMEOUT, async || space.pods.now().is_empty().then_some(())).await;
    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.yaml");
    std::fs::write(&values, helm("get values rota -o yaml").await).unwrap();
    let token = admin_token().await;
    helm("uninstall rota --wait --timeout 3m").await;

    // CRDs, the volume, the lease, authority and token are kept, everything else is deleted.
    let kinds = run("kubectl get crd -o name").await.success();
    assert!(kinds.contains("agents.rota.dev") && kinds.contains("tasks.rota.dev"), "{kinds}");
    assert_eq!(names("pvc").await.trim(), "persistentvolumeclaim/rota-data");
    until("the operator's objects are deleted", TEST_TIMEOUT, async || {
        let remaining = names("secrets,leases,deployments,services,pods").await;
        let ours: Vec<_> = remaining.lines().filter(|name| name.contains("/rota")).collect();
        let kept = [
            "secret/rota-admin-token",
            "secret/rota-ca",
            "secret/rota-tls",
            "lease.coordination.k8s.io/rota-operator",
        ];
        (ours == kept).then_some(())
    })
    .await;
    assert_eq!(space.field("task/quick", ".status.phase").await, "Succeeded");

    let with = format!("-f {} --wait --timeout 5m", values.display());
    helm(&format!("upgrade --install rota charts/rota {with}")).await;
    assert_eq!(admin_token().await, token);
    let control = Control::connect().await;
    let logs = control.rota(&format!("logs quick --namespace {}", space.name)).await.success();
    assert!(logs.contains("hello from before"), "{logs}");
    // The finished task is not run again; new tasks run.
    space.apply(&QUICK.replace("name: quick", "name: again")).await;
    space.wait("task/again", "condition=Complete", "180s").await;
    assert_eq!(space.field("task/quick", ".status.attempt").await, "1");
}
