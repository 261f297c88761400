//! Restart of operator and control plane, loss and eviction of workers: every task finishes once, and tasks on surviving
//! workers are not restarted.

use std::collections::BTreeMap;

use rota_e2e::{Control, RELEASE, Space, run, run_with, until};
use serde_json::{Value, json};

use super::{AGENT, TEST_TIMEOUT, tasks, wait_until_draining, workers};

/// Returns the phase, worker and attempt of each task.
async fn assignments(space: &Space) -> BTreeMap<String, (String, String, i64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |task: &Value| {
        let status = &task["status"];
        let attempt = status["attempt"].as_i64().unwrap_or_default();
        (text(&task["metadata"]["name"]), (text(&status["phase"]), text(&status["worker"]), attempt))
    };
    space.tasks().await.iter().map(of).collect()
}

/// Waits until `deployment` has a new, ready pod instead of `old`.
async fn wait_until_replaced(deployment: &str, old: &str) {
    let label = format!("-l app.kubernetes.io/component={deployment} -o name");
    until("the pod is replaced", TEST_TIMEOUT, async || {
        let pods = run(&format!("kubectl -n {RELEASE} get pods {label}")).await.success();
        (!pods.contains(old) && !pods.is_empty()).then_some(())
    })
    .await;
    run(&format!("kubectl -n {RELEASE} rollout status deployment/rota-{deployment} --timeout=180s"))
        .await
        .success();
}

async fn pod_of(deployment: &str) -> String {
    let label = format!("-l app.kubernetes.io/component={deployment}");
    let name = "-o jsonpath={.items[0].metadata.name}";
    run(&format!("kubectl -n {RELEASE} get pods {label} {name}")).await.success()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn tasks_survive_component_failures() {
    let space = Space::new("faults").await;
    space.apply(&(AGENT.to_owned() + &tasks())).await;
    space.wait("tasks.rota.dev --all", "condition=Running", "180s").await;
    let initial = assignments(&space).await;
    let used: Vec<_> = {
        let mut all: Vec<_> = initial.values().map(|(_, worker, _)| worker.clone()).collect();
        all.sort();
        all.dedup();
        all
    };
    assert_eq!(used.len(), 3, "{initial:?}");

    // Kills the operator without grace, and the control plane with grace, as a node drain does.
    let (operator, server) = (pod_of("operator").await, pod_of("server").await);
    run(&format!("kubectl -n {RELEASE} delete pod {operator} --force --grace-period=0")).await.success();
    run(&format!("kubectl -n {RELEASE} delete pod {server} --wait=false")).await.success();
    wait_until_replaced("server", &server).await;
    wait_until_replaced("operator", &operator).await;
    let control = Control::connect().await;
    until("all workers are connected again", TEST_TIMEOUT, async || {
        let all = workers(&space, &control).await;
        (all.iter().filter(|worker| worker["connected"] == true).count() == 3).then_some(())
    })
    .await;
    assert_eq!(assignments(&space).await, initial, "no task was restarted");

    // Kills a worker without grace; its tasks are reassigned.
    let (lost, evicted) = (&used[0], &used[1]);
    space.kubectl(&format!("delete pod {lost} --force --grace-period=0")).await.success();
    until("its tasks are reassigned", TEST_TIMEOUT, async || {
        let now = assignments(&space).await;
        let moved = initial.iter().filter(|(_, was)| &was.1 == lost).all(|(name, _)| {
            let (phase, worker, attempt) = &now[name];
            phase == "Running" && worker != lost && *attempt == 2
        });
        moved.then_some(())
    })
    .await;

    // Evicts a worker with grace; it finishes its tasks.
    let path = format!("/api/v1/namespaces/{}/pods/{evicted}/eviction", space.name);
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": evicted, "namespace": space.name},
    });
    run_with(&format!("kubectl create --raw {path} -f -"), &eviction.to_string()).await.success();
    wait_until_draining(&space, &control, evicted).await;

    let now = assignments(&space).await;
    let mut busy: Vec<_> = now.values().map(|(_, worker, _)| worker.clone()).collect();
    busy.sort();
    busy.dedup();
    for worker in &busy {
        space.sh(worker, "touch /tmp/go").await.success();
    }
    space.wait("tasks.rota.dev --all", "condition=Complete", "180s").await;
    for (name, (_, worker, attempt)) in assignments(&space).await {
        let was = &initial[&name];
        if &was.1 == lost {
            assert_eq!(attempt, 2, "{name}");
        } else {
            assert_eq!((&worker, attempt), (&was.1, 1), "{name} was restarted");
        }
        let logs = control.rota(&format!("logs {name} --namespace {}", space.name)).await.success();
        assert_eq!(logs.lines().filter(|line| *line == "end").count(), 1, "{name}: {logs}");
    }
    let left = until("the evicted worker has terminated", TEST_TIMEOUT, async || {
        space
            .pods
            .all()
            .into_iter()
            .find(|pod| pod.metadata.name.as_ref() == Some(evicted) && !rota_e2e::is_active(pod))
    })
    .await;
    let phase = left.status.and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Succeeded"), "the worker exited on its own");
}
