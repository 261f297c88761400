//! Pods of a namespace that goes. A cluster waits for them before it deletes anything else there, so a worker
//! would finish a task whose resource nobody can save any more, and hold the namespace for all of its grace.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams};
use kube::{Client, ResourceExt};

use crate::cluster;

/// Whether a pod is on its way, and has time.
pub(crate) fn lingers(pod: &Pod) -> bool {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    pod.metadata.deletion_timestamp.is_some() && grace > 0
}

/// Lets the cluster forget a pod that goes with its namespace. Then the namespace's tasks go, which ends what they
/// run; where the control plane is away, that is when it is back.
pub(crate) async fn release(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let name = pod.namespace().unwrap_or_default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let goes =
        |namespace: kube::core::PartialObjectMeta<Namespace>| namespace.metadata.deletion_timestamp.is_some();
    if !namespaces.get_metadata_opt(&name).await?.is_some_and(goes) {
        return Ok(());
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &name);
    let at_once = DeleteParams::default().grace_period(0);
    cluster::remove(&pods, &pod.name_any(), &pod.uid().unwrap_or_default(), at_once).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_goes_and_has_time_lingers() {
        let pod = |metadata| serde_json::from_value::<Pod>(json!({ "metadata": metadata })).unwrap();
        let at = "2026-01-01T00:00:00Z";
        assert!(lingers(&pod(json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 600}))));
        assert!(!lingers(&pod(json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 0}))));
        assert!(!lingers(&pod(json!({"deletionGracePeriodSeconds": 600}))));
        assert!(!lingers(&pod(json!({}))));
    }
}
