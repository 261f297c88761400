//! Conventions of the objects that the operator creates: labels, names, field managers, deletion.

use std::collections::BTreeMap;
use std::fmt::Debug;

use kube::api::{Api, DeleteParams, Preconditions};
use kube::core::Status;
pub(crate) use rota_proto::labels::CLUSTER;
use serde::de::DeserializeOwned;

/// Field manager of the objects that the operator creates.
pub(crate) const MANAGER: &str = "rota-operator";
/// Field manager of the `status` subresource.
pub(crate) const STATUS_MANAGER: &str = "rota-operator-status";

/// Recommended label: the program that manages an object.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label: name of the agent whose worker a pod runs.
pub(crate) const AGENT: &str = "rota.dev/agent";
/// Label: role of a pod, always `worker`.
pub(crate) const ROLE: &str = "rota.dev/role";
/// Label: hash of the spec that a pod was created from.
pub(crate) const SPEC_HASH: &str = "rota.dev/spec-hash";
/// Label: number of tasks that a pod runs at a time.
pub(crate) const SLOTS: &str = "rota.dev/slots";
/// Label: UID of the only task that a pod may run, if it is limited to one.
pub(crate) const TASK_UID: &str = "rota.dev/task-uid";
/// Label: class of the installation that an object belongs to. Objects of the default class have none.
pub(crate) const CLASS: &str = "rota.dev/class";
/// ConfigMap of the default class with the certificate authority that the pods of a namespace trust.
pub(crate) const CA_CONFIG_MAP: &str = "rota-ca";

/// Returns the recommended labels of a component.
pub(crate) fn labels(component: &str) -> BTreeMap<String, String> {
    [("app.kubernetes.io/name", "rota"), ("app.kubernetes.io/component", component), (MANAGED_BY, MANAGER)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Deletes the object with this UID, not a newer one of the same name. Returns whether it was there.
pub(crate) async fn delete<K>(
    objects: &Api<K>,
    name: &str,
    uid: &str,
    params: DeleteParams,
) -> Result<bool, kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let params = params.preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    match objects.delete(name, &params).await {
        Ok(_) => Ok(true),
        Err(error) if is_deleted(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns whether a request was rejected because its namespace is terminating.
pub(crate) fn is_namespace_terminating(rejection: &Status) -> bool {
    let causes = rejection.details.iter().flat_map(|details| &details.causes);
    causes.map(|cause| cause.reason.as_str()).any(|reason| reason == "NamespaceTerminating")
}

/// Returns whether the object was deleted: no object of its name exists, or one with another UID.
pub(crate) fn is_deleted(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}
