//! The control plane is restored from a backup: agents are registered again, and tasks that have ended are not run again.

use rota_e2e::{Control, Outage, RELEASE, Space, run, run_with, until};
use serde_json::Value;

use super::TEST_TIMEOUT;

/// Documentation with the pod that restores.
const BACKUP: &str = include_str!("../../../../../docs/backup.md");

/// Agent of the backup, whose tasks run until a file is created.
const BEFORE: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: steady}
spec:
  runtime: {command: {shell: 'echo begin; until [ -e /tmp/go ]; do sleep 0.2; done; echo end'}}
  replicas: 1
  maxReplicas: 1
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: open}
spec: {agent: steady}
";

/// Agent and task that the backup lacks.
const AFTER: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: late}
spec: {runtime: {command: {shell: 'echo late'}}, maxReplicas: 1}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: made}
spec: {agent: late}
";

fn task(name: &str, agent: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: {name}}}
spec: {{agent: {agent}}}
"
    )
}

/// Makes a backup as the CronJob does.
async fn back_up() {
    run(&format!("kubectl -n {RELEASE} create job --from=cronjob/rota-backup backup-now")).await.success();
    let done = format!("kubectl -n {RELEASE} wait job/backup-now --for=condition=Complete --timeout=120s");
    run(&done).await.success();
    run(&format!("kubectl -n {RELEASE} delete job backup-now")).await.success();
}

/// Restores the newest backup while the control plane is down, by the pod of the documentation. The claim of the backups is that of
/// the store.
async fn restore() {
    let (_, pod) = BACKUP.split_once("kubectl -n rota apply -f - <<'EOF'\n").unwrap();
    let (pod, _) = pod.split_once("\nEOF\n").unwrap();
    let path = "-o jsonpath={.spec.template.spec.containers[0].image}";
    let image = run(&format!("kubectl -n {RELEASE} get deployment rota-server {path}")).await.success();
    let pod = pod.replace("IMAGE ", &format!("{} ", image.trim()));
    let (pod, _) = pod.split_once("\n    - {name: backup,").unwrap();
    let pod = pod.replace("{name: backup,", "{name: data,");
    // As in a cluster where the namespace of each release is labelled.
    let level = "pod-security.kubernetes.io/enforce";
    run(&format!("kubectl label namespace {RELEASE} --overwrite {level}=restricted")).await.success();
    run_with(&format!("kubectl -n {RELEASE} create -f -"), &pod).await.success();
    run(&format!("kubectl label namespace {RELEASE} {level}-")).await.success();
    let done =
        format!("kubectl -n {RELEASE} wait pod/rota-restore --for=jsonpath={{.status.phase}}=Succeeded");
    run(&format!("{done} --timeout=120s")).await.success();
    run(&format!("kubectl -n {RELEASE} delete pod rota-restore")).await.success();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn restored_control_plane_runs_nothing_again() {
    let space = Space::new("restored").await;
    space.apply(BEFORE).await;
    space.wait("task/open", "condition=Running", "180s").await;
    back_up().await;

    let worker = space.field("task/open", ".status.worker").await;
    space.sh(&worker, "touch /tmp/go").await.success();
    space.wait("task/open", "condition=Complete", "120s").await;
    space.apply(AFTER).await;
    space.wait("task/made", "condition=Complete", "120s").await;
    // An attempt that ran again would now wait for it.
    space.sh(&worker, "rm /tmp/go").await.success();

    // As the runbook has it. The operator remembers which store it had.
    let outage = Outage::of_all().await;
    restore().await;
    outage.end().await;

    let control = Control::connect().await;
    let open = format!("get tasks open --namespace {} -o json", space.name);
    until("the record of the ended task is cancelled", TEST_TIMEOUT, async || {
        let listed: Value = serde_json::from_str(&control.rota(&open).await.success()).unwrap();
        let task = listed["tasks"].get(0).unwrap_or(&listed);
        (task["status"]["state"] == "TASK_STATE_CANCELLED").then_some(())
    })
    .await;
    let log = control.rota(&format!("events open --namespace {}", space.name)).await.success();
    assert!(log.contains("restored from a backup"), "{log}");
    for name in ["open", "made"] {
        assert_eq!(space.field(&format!("task/{name}"), ".status.phase").await, "Succeeded");
    }
    // The agent that the backup lacks is known again without a change of its resource.
    space.apply(&task("again", "late")).await;
    space.wait("task/again", "condition=Complete", "120s").await;
    let events = space.kubectl("get events --field-selector reason=ControlPlaneLostRecords -o name").await;
    assert_eq!(events.success().lines().count(), 2, "one for each agent");
    space.apply(&task("next", "steady")).await;
    space.wait("task/next", "condition=Running", "120s").await;
    let worker = space.field("task/next", ".status.worker").await;
    space.sh(&worker, "touch /tmp/go").await.success();
    space.wait("task/next", "condition=Complete", "120s").await;
}
