//! `kubectl delete task` ends what runs, also when nobody can be told at that moment.

use std::time::Duration;

use rota_e2e::{Away, Control, Space, processes, run, until};

const LIMIT: Duration = Duration::from_secs(120);
/// Between the request to end and the kill, as the tasks below have it.
const GRACE: Duration = Duration::from_secs(3);
/// What may be added to it.
const SLACK: Duration = Duration::from_secs(10);
/// Objects go at once: nothing holds them.
const AT_ONCE: &str = "10s";

/// Its tasks ignore what they are asked, and so does what they started and let go. `seconds` tells whose they are.
fn agent(seconds: u32) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: stubborn}}
spec:
  runtime:
    command: {{shell: 'trap \"\" INT TERM; setsid sleep {seconds} & sleep {seconds} & echo started; wait; wait'}}
  replicas: 1
  maxReplicas: 1
---
"
    )
}

fn task(name: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: {name}}}
spec: {{agent: stubborn, limits: {{cancelGrace: {}s}}}}
",
        GRACE.as_secs()
    )
}

/// How many of the processes of the task there are in a pod.
async fn left(space: &Space, pod: &str, seconds: u32) -> usize {
    let look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '^SECONDS$' || true";
    let found = space.sh(pod, &look.replace("SECONDS", &seconds.to_string())).await.good();
    found.trim().parse().unwrap()
}

async fn running(space: &Space, name: &str, seconds: u32) -> String {
    space.wait(&format!("task/{name}"), "condition=Running", "180s").await;
    let pod = space.field(&format!("task/{name}"), ".status.worker").await;
    until("both processes run", LIMIT, async || (left(space, &pod, seconds).await == 2).then_some(())).await;
    pod
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn deletion_ends_what_runs() {
    let space = Space::new("deletion").await;
    space.apply(&(agent(7301) + &task("long"))).await;
    let pod = running(&space, "long", 7301).await;
    space.kubectl(&format!("delete task long --timeout={AT_ONCE}")).await.good();
    until("no process is left", GRACE + SLACK, async || (left(&space, &pod, 7301).await == 0).then_some(()))
        .await;
    // The worker is as good as before, and the next task of this name is another one.
    space.apply(&task("long")).await;
    assert_eq!(running(&space, "long", 7301).await, pod);
    space.kubectl("patch task long --type=merge -p {\"spec\":{\"desiredState\":\"Cancelled\"}}").await.good();
    space.wait("task/long", "condition=Failed", "60s").await;
    assert_eq!(space.field("task/long", ".status.phase").await, "Cancelled");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn deletion_while_the_control_plane_is_away() {
    let space = Space::new("deletion").await;
    let other = Space::new("deletion").await;
    space.apply(&(agent(7302) + &task("long"))).await;
    other.apply(&(agent(7303) + &task("long"))).await;
    let pod = running(&space, "long", 7302).await;
    running(&other, "long", 7303).await;

    let away = Away::now().await;
    space.kubectl(&format!("delete task long --timeout={AT_ONCE}")).await.good();
    // A namespace goes with its pods: with nobody to report to, they are not waited for.
    run(&format!("kubectl delete namespace {} --timeout=60s", other.name)).await.good();
    assert_eq!(left(&space, &pod, 7302).await, 2, "nobody could be told yet");

    away.back().await;
    // The worker has to find the control plane again, the operator too; then the grace begins.
    until("no process is left", LIMIT, async || (left(&space, &pod, 7302).await == 0).then_some(())).await;
    until("none of the namespace that went is left", LIMIT, async || {
        processes("sleep 7303").is_none_or(|left| left == 0).then_some(())
    })
    .await;
    let control = Control::connect().await;
    for space in [&space, &other] {
        let list = format!("get tasks --namespace {} -o json", space.name);
        until("the record has ended", LIMIT, async || {
            let said = control.rota(&list).await.good();
            said.contains("CANCELLED").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn deletion_of_a_whole_namespace() {
    let space = Space::new("deletion").await;
    space.apply(&(agent(7304) + &task("long"))).await;
    running(&space, "long", 7304).await;
    // Its pods have ten minutes, and what they do never ends.
    run(&format!("kubectl delete namespace {} --timeout=60s", space.name)).await.good();
    until("no process is left", GRACE + SLACK, async || {
        processes("sleep 7304").is_none_or(|left| left == 0).then_some(())
    })
    .await;
}
