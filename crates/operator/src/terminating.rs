//! Worker pods in terminating namespaces. The cluster waits for pods before it deletes anything else there, so a worker
//! would finish a task that can no longer be saved, and hold the namespace for its whole grace period.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams};
use kube::{Client, ResourceExt};

use crate::cluster;

/// Returns whether a pod is terminating and still has a grace period.
pub(crate) fn is_in_grace_period(pod: &Pod) -> bool {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    pod.metadata.deletion_timestamp.is_some() && grace > 0
}

/// Deletes a pod without grace if its namespace is terminating. The namespace's tasks are deleted next, which ends their
/// attempts; if the control plane is unavailable, they end when it is back.
pub(crate) async fn release(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let name = pod.namespace().unwrap_or_default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = namespaces.get_metadata_opt(&name).await?;
    if namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_none()) {
        return Ok(());
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &name);
    let without_grace = DeleteParams::default().grace_period(0);
    cluster::delete(&pods, &pod.name_any(), &pod.uid().unwrap_or_default(), without_grace).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_terminating_pods_have_grace() {
        let pod = |metadata| serde_json::from_value::<Pod>(json!({ "metadata": metadata })).unwrap();
        let at = "2026-01-01T00:00:00Z";
        assert!(is_in_grace_period(&pod(
            json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 600})
        )));
        assert!(!is_in_grace_period(&pod(json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 0}))));
        assert!(!is_in_grace_period(&pod(json!({"deletionGracePeriodSeconds": 600}))));
        assert!(!is_in_grace_period(&pod(json!({}))));
    }
}
