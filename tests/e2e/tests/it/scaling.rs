//! Pools that grow with demand, no further than they may, and shrink again to nothing.

use std::fmt::Write as _;
use std::time::Duration;

use rota_e2e::{Space, until};

const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn scaling_from_nothing_to_the_ceiling_and_back() {
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
    space.wait("tasks.rota.dev --all", "condition=Complete", "300s").await;
    until("the pool is empty", LIMIT, async || space.pods.now().is_empty().then_some(())).await;

    let tasks = space.tasks().await;
    assert_eq!(tasks.len(), 30);
    for task in &tasks {
        assert_eq!(task["status"]["phase"], "Succeeded", "{}", task["status"]);
        assert_eq!(task["status"]["attempt"], 1, "no worker was taken away: {}", task["status"]);
    }
    let (most, ever) = (space.pods.most(), space.pods.ever().len());
    println!("30 tasks, ceiling 4: at most {most} pods at once, {ever} in all");
    assert!((2..=4).contains(&most), "{most} pods\n{}", space.pods.story());
    assert_eq!(space.pods.ended_by_force(), [""; 0], "{}", space.pods.story());
    until("the agent shows nothing", LIMIT, async || {
        let status = space.get("agent actor").await["status"].take();
        let zero = ["replicas", "readyWorkers", "busyWorkers", "queuedTasks", "runningTasks"];
        zero.iter().all(|field| status[field] == 0).then_some(())
    })
    .await;
    // What a person sees of it: started pods, and no warnings.
    let events = space.kubectl("get events --field-selector type=Warning -o name").await.good();
    let of_ours = space
        .kubectl("get events --field-selector type=Warning,reportingComponent=rota-operator -o jsonpath={.items[*].reason}")
        .await
        .good();
    assert_eq!(of_ours, "", "{events}");
}
