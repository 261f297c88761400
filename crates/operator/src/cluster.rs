//! What all objects that we make have in common: labels, names, field managers, and how they go.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::core::Status;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::Options;

/// The field manager of objects that we make.
pub(crate) const MANAGER: &str = "rota-operator";
/// The field manager of what we say in `status`.
pub(crate) const STATUS_MANAGER: &str = "rota-operator-status";

/// Whose worker a pod is.
pub(crate) const AGENT: &str = "rota.dev/agent";
/// What a pod is: `worker`.
pub(crate) const ROLE: &str = "rota.dev/role";
/// What its pod was made from.
pub(crate) const SPEC_HASH: &str = "rota.dev/spec-hash";
/// The task that a pod is for, when it is for one only.
pub(crate) const TASK_UID: &str = "rota.dev/task-uid";
/// On records of the control plane: which cluster they came from.
pub(crate) const CLUSTER: &str = "rota.dev/cluster";
/// The ConfigMap that tells pods of a namespace which authority to trust.
pub(crate) const CA_CONFIG_MAP: &str = "rota-ca";

/// The usual labels.
pub(crate) fn labels(component: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "rota"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/managed-by", "rota-operator"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// What we make goes with our Deployment, and so with the release.
pub(crate) async fn owner(client: &Client, options: &Options) -> Result<Option<OwnerReference>, kube::Error> {
    let Some(name) = &options.deployment else { return Ok(None) };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &options.namespace);
    Ok(deployments.get_opt(name).await?.and_then(|deployment| deployment.owner_ref(&())))
}

/// Removes an object: this one, and not another that has taken its name. One that is gone is no error.
pub(crate) async fn remove<K>(
    objects: &Api<K>,
    name: &str,
    uid: &str,
    params: DeleteParams,
) -> Result<(), kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let params = params.preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    match objects.delete(name, &params).await {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether something was refused because its namespace goes, and all that is in it.
pub(crate) fn is_leaving(refusal: &Status) -> bool {
    let causes = refusal.details.iter().flat_map(|details| &details.causes);
    causes.map(|cause| cause.reason.as_str()).any(|reason| reason == "NamespaceTerminating")
}

/// Whether the object that was meant is not there any more: none of its name, or another.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}
