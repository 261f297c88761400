//! Keeps the control plane's certificate, its authority and the token for people, as secrets in our
//! own namespace. Nobody has to make them, and nobody needs another controller for them.

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

/// How often it is looked at whether something is due or was taken away.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);
const MANAGER: &str = "rota-operator-trust";

/// Makes what is missing or due. Returns the authority's certificate, in PEM.
pub(crate) async fn ensure(client: &Client, options: &Options) -> Result<String, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &options.namespace);
    let owner = cluster::owner(client, options).await?;
    let now = clock::now();
    let keep = |name: &str, content: Option<Content>| keep(&secrets, name.to_owned(), content, owner.clone());

    let existing = secrets.get_opt(&options.ca_secret).await?;
    let (authority, content) = material::authority(now, existing.as_ref())?;
    keep(&options.ca_secret, content).await?;

    let existing = secrets.get_opt(&options.tls_secret).await?;
    let content = material::server(now, &authority, &names(options), existing.as_ref())?;
    keep(&options.tls_secret, content).await?;

    let existing = secrets.get_opt(&options.admin_token_secret).await?;
    let content = material::token(existing.as_ref(), rand::rng().random());
    keep(&options.admin_token_secret, content).await?;
    Ok(authority.certificate)
}

/// The names by which the control plane is called.
fn names(options: &Options) -> Vec<String> {
    let Options { service, namespace, .. } = options;
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
        service.clone(),
        // For `kubectl port-forward`.
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ]
}

async fn keep(
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
    let made = secrets.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&secret)).await?;
    tracing::info!(secret = made.name_any(), "a secret was made anew");
    Ok(())
}
