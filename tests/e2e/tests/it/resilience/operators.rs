//! Two operators, of which the leader is killed, and then asked to stop, while hundreds of tasks are created: the other one takes
//! over, and each task ends once.

use futures::{StreamExt, stream};
use kube::api::{Api, PostParams};
use rota_crds::resource::Task;
use rota_e2e::{RELEASE, Space, client, run, until};
use serde_json::json;

use super::TEST_TIMEOUT;

const TASKS: usize = 600;
/// Calls at the same time, each of which takes a while.
const CONCURRENT: usize = 8;

/// Two operators, and one again when this is dropped.
struct TwoOperators;

impl TwoOperators {
    async fn start() -> Self {
        let this = Self;
        run(&format!("kubectl -n {RELEASE} scale deployment/rota-operator --replicas=2")).await.success();
        run(&format!("kubectl -n {RELEASE} rollout status deployment/rota-operator --timeout=180s"))
            .await
            .success();
        this
    }
}

impl Drop for TwoOperators {
    fn drop(&mut self) {
        let scale = ["-n", RELEASE, "scale", "deployment/rota-operator", "--replicas=1"];
        let _ = std::process::Command::new("kubectl").args(scale).status();
    }
}

/// Returns the pod of the operator that leads.
async fn leader() -> String {
    let of = "get lease rota-operator -o jsonpath={.spec.holderIdentity}";
    let pods = "get pods --selector app.kubernetes.io/component=operator -o name";
    until("an operator leads", TEST_TIMEOUT, async || {
        let holder = run(&format!("kubectl -n {RELEASE} {of}")).await.success();
        let pods = run(&format!("kubectl -n {RELEASE} {pods}")).await.success();
        pods.lines()
            .find_map(|pod| pod.strip_prefix("pod/").filter(|pod| holder.contains(pod)))
            .map(str::to_owned)
    })
    .await
}

/// Removes the leader, and waits until the other one leads.
async fn replace_leader(how: &str) {
    let old = leader().await;
    run(&format!("kubectl -n {RELEASE} delete pod {old} --wait=false {how}")).await.success();
    until("the other operator leads", TEST_TIMEOUT, async || (leader().await != old).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn operators_take_over_from_each_other_under_load() {
    let space = Space::new("operators").await;
    let _two = TwoOperators::start().await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, replicas: 2, maxReplicas: 2, slots: 8}
",
        )
        .await;
    space.wait("agent/actor", "condition=Ready", "180s").await;
    let tasks: Api<Task> = Api::namespaced(client().await, &space.name);
    let create = stream::iter(0..TASKS).for_each_concurrent(CONCURRENT, async |number| {
        let task = json!({
            "apiVersion": "rota.dev/v1alpha1",
            "kind": "Task",
            "metadata": { "name": format!("part-{number}") },
            "spec": { "agent": "actor" },
        });
        tasks.create(&PostParams::default(), &serde_json::from_value(task).unwrap()).await.unwrap();
    });
    let replace = async {
        replace_leader("--force --grace-period=0").await;
        replace_leader("").await;
    };
    futures::future::join(create, replace).await;
    let all = until("all tasks have finished", TEST_TIMEOUT, async || {
        let tasks = space.tasks().await;
        tasks.iter().all(|task| !task["status"]["completionTime"].is_null()).then_some(tasks)
    })
    .await;
    assert_eq!(all.len(), TASKS);
    for task in &all {
        let status = &task["status"];
        assert_eq!((&status["phase"], &status["attempt"]), (&json!("Succeeded"), &json!(1)), "{status}");
    }
    assert_eq!(space.pods.all().len(), 2, "{}", space.pods.history());
}
