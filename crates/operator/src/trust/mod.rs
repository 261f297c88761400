//! Certificate authority, server certificate and admin token of the control plane, kept as Secrets in the operator's
//! namespace. Makes a certificate controller unnecessary, and leaves the certificate to one that exists.

mod certificate;
mod material;

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use rand::Rng;
use rota_telemetry::clock;

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
    let owner = cluster::owner(client, options).await?;
    let now = clock::now();
    let write =
        |name: &str, content: Option<Content>| write(&secrets, name.to_owned(), content, owner.clone());

    let existing = secrets.get_opt(&options.admin_token_secret).await?;
    let content = material::token(existing.as_ref(), rand::rng().random());
    write(&options.admin_token_secret, content).await?;

    if options.tls_existing {
        let existing = secrets.get_opt(&options.tls_secret).await?;
        return material::foreign_authority(existing.as_ref())
            .map_err(|reason| Error::ForeignCertificate { secret: options.tls_secret.clone(), reason });
    }
    let existing = secrets.get_opt(&options.ca_secret).await?;
    let (authority, content) = material::authority(now, existing.as_ref())?;
    write(&options.ca_secret, content).await?;

    let existing = secrets.get_opt(&options.tls_secret).await?;
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

async fn write(
    secrets: &Api<Secret>,
    name: String,
    content: Option<Content>,
    owner: Option<OwnerReference>,
) -> Result<(), Error> {
    let Some(content) = content else { return Ok(()) };
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(cluster::labels("trust")),
            annotations: Some(content.annotations),
            owner_references: owner.map(|owner| vec![owner]),
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
