//! Trouble group: what the cluster does to pods of workers, and how users learn of it.

mod memory;
mod node_loss;
mod refusal;
mod storage;

use std::time::Duration;

use rota_e2e::{Space, until};

const TEST_TIMEOUT: Duration = Duration::from_secs(240);

/// Returns an agent of a shell command, with a part of its pod.
fn agent(command: &str, more: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: shell}}
spec:
  runtime: {{command: {{shell: '{command}'}}}}
  maxReplicas: 1
  {more}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: first}}
spec: {{agent: shell, retry: {{maxWorkerLosses: 0}}}}
"
    )
}

/// Waits until a field contains a text, and returns the field.
async fn field_with(space: &Space, what: &str, path: &str, text: &str) -> String {
    until(&format!("{text:?} in {path} of {what}"), TEST_TIMEOUT, async || {
        let field = space.field(what, path).await;
        field.contains(text).then_some(field)
    })
    .await
}

/// Waits until an Event of the namespace contains a text.
async fn event_with(space: &Space, text: &str) {
    until(&format!("an Event with {text:?}"), TEST_TIMEOUT, async || {
        let events = space.kubectl("get events -o jsonpath={.items[*].message}").await.success();
        events.contains(text).then_some(())
    })
    .await;
}
