//! Resilience group: lost components, lost and evicted workers, drained nodes, a restored store, replicas.

mod delivery;
mod drain;
mod failover;
mod operators;
mod phases;
mod replicas;
mod restore;

use std::time::Duration;

use rota_e2e::{Control, Space, until};
use serde_json::Value;

const TEST_TIMEOUT: Duration = Duration::from_secs(240);

/// Agent whose tasks run until a file is created.
const AGENT: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: steady}
spec:
  runtime: {command: {shell: 'echo begin; until [ -e /tmp/go ]; do sleep 0.2; done; echo end'}}
  slots: 2
  replicas: 3
  maxReplicas: 3
";

fn tasks() -> String {
    (0..6)
        .map(|number| {
            format!(
                "---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: job-{number}}}
spec: {{agent: steady}}
"
            )
        })
        .collect()
}

/// Returns the workers of the namespace, as the control plane reports them.
async fn workers(space: &Space, control: &Control) -> Vec<Value> {
    let line = format!("get workers --namespace {} -o json", space.name);
    let listed: Value = serde_json::from_str(&control.rota(&line).await.success()).unwrap();
    listed["workers"].as_array().cloned().unwrap_or_default()
}

/// Waits until a worker is draining.
async fn wait_until_draining(space: &Space, control: &Control, name: &str) {
    until("the worker is draining", TEST_TIMEOUT, async || {
        let all = workers(space, control).await;
        let same = |worker: &&Value| worker["name"].as_str().is_some_and(|full| full.ends_with(name));
        all.iter().find(same).is_some_and(|worker| worker["draining"] == true).then_some(())
    })
    .await;
}
