//! `kubectl delete task` ends what runs, also when nobody can be told at that moment.

use std::time::Duration;

use rota_e2e::{Away, Control, Space, run, until};

const LIMIT: Duration = Duration::from_secs(120);
/// Between the request to end and the kill, as the tasks below have it.
const GRACE: Duration = Duration::from_secs(3);
/// What may be added to it.
const SLACK: Duration = Duration::from_secs(10);
/// Objects go at once: nothing holds them.
const AT_ONCE: &str = "10s";

const AGENT: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: stubborn}
spec:
  # It ignores what it is asked, and so does what it started and let go.
  runtime: {command: {shell: 'trap \"\" INT TERM; setsid sleep 7301 & sleep 7302 & echo started; wait; wait'}}
  replicas: 1
  maxReplicas: 1
---
";

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
async fn processes(space: &Space, pod: &str) -> usize {
    let look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '^730[12]$' || true";
    let found = space.sh(pod, look).await.good();
    found.trim().parse().unwrap()
}

async fn running(space: &Space, name: &str) -> String {
    space.wait(&format!("task/{name}"), "condition=Running", "180s").await;
    let pod = space.field(&format!("task/{name}"), ".status.worker").await;
    until("both processes run", LIMIT, async || (processes(space, &pod).await == 2).then_some(())).await;
    pod
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn deletion_ends_what_runs() {
    let space = Space::new("deletion").await;
    space.apply(&(AGENT.to_owned() + &task("long"))).await;
    let pod = running(&space, "long").await;
    space.kubectl(&format!("delete task long --timeout={AT_ONCE}")).await.good();
    until("no process is left", GRACE + SLACK, async || (processes(&space, &pod).await == 0).then_some(()))
        .await;
    // The worker is as good as before, and the next task of this name is another one.
    space.apply(&task("long")).await;
    assert_eq!(running(&space, "long").await, pod);
    space.kubectl("patch task long --type=merge -p {\"spec\":{\"desiredState\":\"Cancelled\"}}").await.good();
    space.wait("task/long", "condition=Failed", "60s").await;
    assert_eq!(space.field("task/long", ".status.phase").await, "Cancelled");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn deletion_while_the_control_plane_is_away() {
    let space = Space::new("deletion").await;
    let other = Space::new("deletion").await;
    space.apply(&(AGENT.to_owned() + &task("long"))).await;
    other.apply(&(AGENT.to_owned() + &task("long"))).await;
    let pod = running(&space, "long").await;
    running(&other, "long").await;

    let away = Away::now().await;
    space.kubectl(&format!("delete task long --timeout={AT_ONCE}")).await.good();
    // A namespace goes with its pods: with nobody to report to, they are not waited for.
    run(&format!("kubectl delete namespace {} --timeout=60s", other.name)).await.good();
    assert_eq!(processes(&space, &pod).await, 2, "nobody could be told yet");

    away.back().await;
    // The worker has to find the control plane again, the operator too; then the grace begins.
    until("no process is left", LIMIT, async || (processes(&space, &pod).await == 0).then_some(())).await;
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
    space.apply(&(AGENT.to_owned() + &task("long"))).await;
    running(&space, "long").await;
    // Its pods have ten minutes, and what they do never ends: they get less there.
    run(&format!("kubectl delete namespace {} --timeout=60s", space.name)).await.good();
}
