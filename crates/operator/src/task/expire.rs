//! The end of finished `Task` resources.

use jiff::Timestamp;
use kube::runtime::controller::Action;
use rota_crds::resource::{Task, TaskStatus};

use super::{Tasks, apply};
use crate::error::ReconcileError;
use crate::lifetime::{self, Expiry};

impl Tasks {
    /// Deletes a finished resource after its time to live. The record stays in the control plane.
    pub(super) async fn expire(&self, task: &Task, now: Timestamp) -> Result<Action, ReconcileError> {
        let Some(status) = &task.status else { return Ok(Action::await_change()) };
        match lifetime::expiry(&task.metadata, task.spec.ttl_after_finished, status.completion_time, now) {
            Expiry::Never => {}
            Expiry::In(left) => return Ok(Action::requeue(left)),
            Expiry::Delete => apply::delete(&self.context, task).await?,
            Expiry::Retain(tool) => {
                let conditions = lifetime::retained(&status.conditions, task.metadata.generation, tool, now);
                let retained = TaskStatus { conditions, ..status.clone() };
                apply::write_status(&self.context, task, retained).await?;
            }
        }
        Ok(Action::await_change())
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;

    use http::{Method, StatusCode};
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::context::tests::{api_server, context};
    use crate::controller::Reconciler;
    use crate::task::Parts;

    const KEPT: &str = "annotations: {'argocd.argoproj.io/tracking-id': 'app:rota.dev/Task:team/build'},";

    fn task(metadata: &str) -> Value {
        let text = format!(
            "{{apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {{{metadata} name: build, namespace: team, uid: u}},
              spec: {{agent: coder, ttlAfterFinished: 1h}},
              status: {{phase: Succeeded, taskId: u, completionTime: '2020-01-01T00:00:00Z',
                conditions: [{{type: Complete, status: 'True', reason: Succeeded, message: '',
                  lastTransitionTime: '2020-01-01T00:00:00Z'}}]}}}}"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    /// Reconciles an object at an API server, and returns what it was asked for.
    async fn reconcile(object: &Value) -> Vec<(Method, Value)> {
        let (requests, answer) = (Arc::<Mutex<Vec<(Method, Value)>>>::default(), object.clone());
        let taken = Arc::clone(&requests);
        let client = api_server(move |method, _, sent| {
            taken.lock().push((method, sent));
            ready((StatusCode::OK, answer.clone()))
        });
        let parts = Parts::new(context(client), Arc::new([]));
        let task: Task = serde_json::from_value(object.clone()).unwrap();
        Box::pin(parts.tasks.reconcile(&task)).await.unwrap();
        requests.lock().clone()
    }

    #[tokio::test]
    async fn task_that_a_tool_would_restore_stays() {
        let asked = reconcile(&task("")).await;
        let [(Method::DELETE, options)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(options["preconditions"]["uid"], "u");

        let mut kept = task(KEPT);
        let asked = reconcile(&kept).await;
        let [(Method::PATCH, patch)] = &asked[..] else { panic!("{asked:?}") };
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        let types: Vec<_> = conditions.iter().map(|condition| &condition["type"]).collect();
        assert_eq!(types, ["Complete", "Retained"]);
        let retained = &conditions[1];
        assert_eq!((&retained["status"], &retained["reason"]), (&json!("True"), &json!("WouldRunAgain")));
        assert!(retained["message"].as_str().unwrap().contains("Argo CD would create it again"));
        assert_eq!(
            (&patch["status"]["phase"], &patch["status"]["taskId"]),
            (&json!("Succeeded"), &json!("u"))
        );
        // Written once.
        kept["status"] = patch["status"].clone();
        assert_eq!(reconcile(&kept).await, []);
    }
}
