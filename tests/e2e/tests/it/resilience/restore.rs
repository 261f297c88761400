//! The control plane is restored from a backup: agents are registered again, and tasks that have ended are not run again.

use rota_e2e::{Control, Outage, RELEASE, Space, run, run_with, until};
use serde_json::{Value, json};

use super::TEST_TIMEOUT;

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

/// Runs a command on the volume of the control plane, which is down.
async fn on_volume(command: &str) {
    let path = "-o jsonpath={.spec.template.spec.containers[0].args}";
    let args = run(&format!("kubectl -n {RELEASE} get deployment rota-operator {path}")).await.success();
    let args: Vec<String> = serde_json::from_str(&args).unwrap();
    let image = args.iter().find_map(|arg| arg.strip_prefix("--worker-image=")).unwrap();
    let security = json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "volume", "namespace": RELEASE},
        "spec": {
            "restartPolicy": "Never", "securityContext": security,
            "containers": [{
                "name": "volume", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", command],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "rota-data"}}],
        },
    });
    run_with("kubectl create -f -", &pod.to_string()).await.success();
    let done = format!("kubectl -n {RELEASE} wait pod/volume --for=jsonpath={{.status.phase}}=Succeeded");
    run(&format!("{done} --timeout=120s")).await.success();
    run(&format!("kubectl -n {RELEASE} delete pod volume")).await.success();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn restored_control_plane_runs_nothing_again() {
    let space = Space::new("restored").await;
    space.apply(BEFORE).await;
    space.wait("task/open", "condition=Running", "180s").await;
    let outage = Outage::start().await;
    on_volume("rm -rf /data/backup && cp -a /data/server /data/backup").await;
    outage.end().await;

    let worker = space.field("task/open", ".status.worker").await;
    space.sh(&worker, "touch /tmp/go").await.success();
    space.wait("task/open", "condition=Complete", "120s").await;
    space.apply(AFTER).await;
    space.wait("task/made", "condition=Complete", "120s").await;
    // An attempt that ran again would now wait for it.
    space.sh(&worker, "rm /tmp/go").await.success();

    let outage = Outage::start().await;
    on_volume("rm -rf /data/server && mv /data/backup /data/server").await;
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
