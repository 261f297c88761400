//! Pods of a namespace that goes. A cluster ends pods before it deletes anything else there, so a worker would
//! finish a task whose resource nobody can save any more, and hold the namespace for all of its grace.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Client, ResourceExt};

/// What a worker gets that has nothing left to finish: enough to end what it runs. In seconds.
const GRACE: u32 = 20;

/// Whether a pod may take longer than it would here.
pub(crate) fn takes_long(pod: &Pod) -> bool {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    pod.metadata.deletion_timestamp.is_some() && grace > i64::from(GRACE)
}

/// Shortens the grace of a pod that goes with its namespace. Needs no control plane.
pub(crate) async fn hurry(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let name = pod.namespace().unwrap_or_default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let goes =
        |namespace: kube::core::PartialObjectMeta<Namespace>| namespace.metadata.deletion_timestamp.is_some();
    if !namespaces.get_metadata_opt(&name).await?.is_some_and(goes) {
        return Ok(());
    }
    let params = DeleteParams::default()
        .grace_period(GRACE)
        .preconditions(Preconditions { uid: pod.uid(), ..Default::default() });
    match Api::<Pod>::namespaced(client.clone(), &name).delete(&pod.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_long_grace_is_shortened() {
        let pod = |metadata| serde_json::from_value::<Pod>(json!({ "metadata": metadata })).unwrap();
        let at = "2026-01-01T00:00:00Z";
        assert!(takes_long(&pod(json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 600}))));
        assert!(!takes_long(&pod(json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 20}))));
        assert!(!takes_long(&pod(json!({"deletionGracePeriodSeconds": 600}))));
        assert!(!takes_long(&pod(json!({}))));
    }
}
