//! Pools that scale from zero to their maximum and back, and pools with a worker to spare.

use std::fmt::Write as _;
use std::time::Duration;

use rota_e2e::{Space, until};

const TEST_TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn pool_scales_to_maximum_and_zero() {
    let space = Space::new("scaling").await;
    let mut manifest = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, replicas: 0, maxReplicas: 4, idleTimeout: 2s}
"
    .to_owned();
    for number in 0..30 {
        let _ = write!(
            manifest,
            "---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: part-{number}}}
spec: {{agent: actor, runtime: {{scripted: {{steps: [{{delay: 1500ms}}, {{succeed: done}}]}}}}}}
"
        );
    }
    space.apply(&manifest).await;
    space.wait("tasks.rota.dev --all", "condition=Complete", "600s").await;
    until("the pool is empty", TEST_TIMEOUT, async || space.pods.now().is_empty().then_some(())).await;

    let tasks = space.tasks().await;
    assert_eq!(tasks.len(), 30);
    for task in &tasks {
        assert_eq!(task["status"]["phase"], "Succeeded", "{}", task["status"]);
        assert_eq!(task["status"]["attempt"], 1, "no busy worker was stopped: {}", task["status"]);
    }
    let (max, all) = (space.pods.max_concurrent(), space.pods.all().len());
    println!("30 tasks, maxReplicas 4: at most {max} pods at a time, {all} in total");
    assert!((2..=4).contains(&max), "{max} pods\n{}", space.pods.history());
    assert_eq!(space.pods.forced_exits(), [""; 0], "{}", space.pods.history());
    until("the agent's counters are zero", TEST_TIMEOUT, async || {
        let status = space.get("agent actor").await["status"].take();
        let zero = ["replicas", "readyWorkers", "busyWorkers", "queuedTasks", "runningTasks"];
        zero.iter().all(|field| status[field] == 0).then_some(())
    })
    .await;
    // The operator publishes no warnings.
    let events = space.kubectl("get events --field-selector type=Warning -o name").await.success();
    let published = space
        .kubectl("get events --field-selector type=Warning,reportingComponent=rota-operator -o jsonpath={.items[*].reason}")
        .await
        .success();
    assert_eq!(published, "", "{events}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn spare_worker_takes_tasks_in_their_order() {
    let space = Space::new("spare").await;
    let agent = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, maxReplicas: 1, spareWorkers: 1, idleTimeout: 1s, overrides: All}
";
    space.apply(agent).await;
    let idle = async || {
        until("an idle worker", TEST_TIMEOUT, async || {
            let status = space.get("agent actor").await["status"].take();
            (status["idleWorkers"] == 1 && status["readyWorkers"] == 1).then_some(())
        })
        .await;
    };
    idle().await;

    // The one that needs the other comes first.
    let task = |name: &str, more: &str| {
        format!(
            "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: {name}}}
spec: {{agent: actor, runtime: {{scripted: {{steps: [{{delay: 1500ms}}, {{succeed: done}}]}}}}{more}}}
"
        )
    };
    space.apply(&task("second", ", dependsOn: [{task: first}]")).await;
    until("the task waits for the other", TEST_TIMEOUT, async || {
        (space.field("task/second", ".status.phase").await == "Pending").then_some(())
    })
    .await;
    space.apply(&task("first", "")).await;
    space.wait("tasks.rota.dev --all", "condition=Complete", "300s").await;
    let time = async |name: &str, field: &str| {
        space.field(&format!("task/{name}"), &format!(".status.{field}")).await
    };
    let (ended, started) = (time("first", "completionTime").await, time("second", "startTime").await);
    assert!(!ended.is_empty() && ended <= started, "{ended} and {started}");

    // It stays when nothing is left to do.
    idle().await;
    assert_eq!(space.pods.all().len(), 1, "{}", space.pods.history());
}
