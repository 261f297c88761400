//! Certificate authority, server certificate and admin token of the control plane, kept as Secrets in the operator's
//! namespace. Makes a certificate controller unnecessary, and leaves the certificate to one that exists. The Secrets have no owner: with
//! the operator's Deployment, which some tools replace, all that trusts the authority or has the token would be locked out.

mod certificate;
mod material;

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use rand::Rng;
use rota_telemetry::clock;
use serde_json::json;

use self::material::Content;
use crate::cluster;
use crate::{Error, Options};

/// Interval at which Secrets are checked for expiry and deletion.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Interval at which the operator looks for a certificate that it does not create.
const WAIT_INTERVAL: Duration = Duration::from_secs(5);
const FIELD_MANAGER: &str = "rota-operator-trust";

/// Creates Secrets that are missing and renews those that are due. Returns the authority's certificate, in PEM.
pub(crate) async fn ensure(client: &Client, options: &Options) -> Result<String, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &options.namespace);
    let now = clock::now();
    let write = |name: &str, content: Option<Content>| write(&secrets, name.to_owned(), content);

    let existing = find(&secrets, &options.admin_token_secret).await?;
    let content = material::token(existing.as_ref(), rand::rng().random());
    write(&options.admin_token_secret, content).await?;

    if options.tls_existing {
        let existing = secrets.get_opt(&options.tls_secret).await?;
        return material::foreign_authority(existing.as_ref())
            .map_err(|reason| Error::ForeignCertificate { secret: options.tls_secret.clone(), reason });
    }
    let existing = find(&secrets, &options.ca_secret).await?;
    let (authority, content) = material::authority(now, existing.as_ref())?;
    write(&options.ca_secret, content).await?;

    let existing = find(&secrets, &options.tls_secret).await?;
    let content = material::server(now, &authority, &names(options), existing.as_ref())?;
    write(&options.tls_secret, content).await?;
    Ok(authority.certificate)
}

/// Like [`ensure`], and waits for the certificate of another controller.
pub(crate) async fn ensure_eventually(client: &Client, options: &Options) -> Result<String, Error> {
    loop {
        match ensure(client, options).await {
            Err(error @ Error::ForeignCertificate { .. }) => {
                tracing::warn!(%error, "waiting for the certificate");
                tokio::time::sleep(WAIT_INTERVAL).await;
            }
            other => return other,
        }
    }
}

/// Returns the names of the control plane that its certificate covers.
fn names(options: &Options) -> Vec<String> {
    let Options { service, namespace, .. } = options;
    let own = [
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
        service.clone(),
        // For `kubectl port-forward`.
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    own.into_iter().chain(options.extra_names.iter().cloned()).collect()
}

/// Returns a Secret. One of an earlier version loses its owner.
async fn find(secrets: &Api<Secret>, name: &str) -> Result<Option<Secret>, Error> {
    let found = secrets.get_opt(name).await?;
    if let Some(owners) = found.as_ref().and_then(owners_but_deployments) {
        let patch = Patch::Merge(json!({ "metadata": { "ownerReferences": owners } }));
        secrets.patch(name, &PatchParams::default(), &patch).await?;
    }
    Ok(found)
}

/// Returns the other owners of a Secret that a Deployment owns.
fn owners_but_deployments(secret: &Secret) -> Option<Vec<&OwnerReference>> {
    let owners = secret.owner_references();
    let others: Vec<_> = owners.iter().filter(|owner| owner.kind != "Deployment").collect();
    (others.len() < owners.len()).then_some(others)
}

async fn write(secrets: &Api<Secret>, name: String, content: Option<Content>) -> Result<(), Error> {
    let Some(content) = content else { return Ok(()) };
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(cluster::labels("trust")),
            annotations: Some(content.annotations),
            ..Default::default()
        },
        type_: Some(content.type_.to_owned()),
        data: Some(content.data),
        ..Default::default()
    };
    let written =
        secrets.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&secret)).await?;
    tracing::info!(secret = written.name_any(), "secret regenerated");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_outlive_the_deployment() {
        let owner = |kind: &str| OwnerReference { kind: kind.to_owned(), ..Default::default() };
        let (deployment, other) = (owner("Deployment"), owner("Certificate"));
        for (owners, left) in [
            (vec![], None),
            (vec![other.clone()], None),
            (vec![deployment.clone()], Some(vec![])),
            (vec![deployment, other.clone()], Some(vec![&other])),
        ] {
            let mut secret = Secret::default();
            secret.metadata.owner_references = Some(owners);
            assert_eq!(owners_but_deployments(&secret), left, "{secret:?}");
        }
    }
}
