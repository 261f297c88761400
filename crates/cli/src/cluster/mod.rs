//! Control planes in clusters, reached by the rights of a kubeconfig: finds the Service, reads certificates and token from the Secrets
//! that its pods use, and forwards a port. Must not know commands, and never writes to the cluster.
//!
//! [`access`] has the address that flags and contexts name, [`control_plane`] what the cluster knows of it, [`forward`] the port,
//! [`renewal`] what is read again, [`proxy`] the proxy on the way.

mod access;
mod control_plane;
mod forward;
mod proxy;
mod renewal;

use std::sync::Arc;

use anyhow::Context as _;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError, NoProxyError};
use rota_client::discover::Found;
use rota_client::{Options, Token};

pub use access::Access;
use control_plane::{ControlPlane, Credentials};
use renewal::Renewal;
use rota_telemetry::{OnExit, spawn};

use crate::exit::{Exit, Failure};

/// Returns a server with an address that a client can call: that of a control plane in a cluster becomes a forwarded port. It is
/// forwarded for as long as the program runs.
pub async fn reach(found: Found) -> anyhow::Result<Found> {
    let Some(access) = Access::parse(&found.options.endpoint)? else { return Ok(found) };
    let (client, namespace) = connect(access.context.as_deref()).await?;
    let control_plane = ControlPlane::find(&client, &access, &namespace).await?;
    let pods = control_plane.ready_pods(&client).await?;
    let pod = pods.first().context("there is no pod")?.clone();
    let Options { token, ca, .. } = found.options;
    let credentials = Credentials::of(&client, pod);
    let renewal = Renewal::start(credentials, ca.is_none(), matches!(token, Token::None)).await?;
    let renewal = Arc::new(renewal);
    let token = renewal.token().map_or(token, Token::Renewed);
    let host = control_plane.host();
    let in_cluster = Options::new(format!("https://{host}"));
    let address = forward::start(client, control_plane, Arc::clone(&renewal), pods).await?;
    let ca_pem = renewal.authority();
    spawn("kube-credentials", OnExit::Done, async move {
        loop {
            tokio::time::sleep(renewal::INTERVAL).await;
            renewal.renew().await;
        }
    });
    let options = Options {
        token,
        ca,
        ca_pem,
        tls_name: Some(host),
        // That of a server elsewhere, which another replica may replace.
        retry_for: in_cluster.retry_for,
        ..Options::new(format!("https://{address}"))
    };
    // A namespace of the cluster is one of Rota.
    let namespace = if found.namespace_given { found.namespace } else { namespace };
    Ok(Found { options, namespace, ..found })
}

/// Whether a server is called through a forwarded port: its certificate has another name than its address.
pub fn is_forwarded(options: &Options) -> bool {
    options.tls_name.is_some()
}

/// Returns the current context of the kubeconfig, for what is kept and must not follow it elsewhere.
pub fn current_context() -> Result<String, Failure> {
    let kubeconfig = Kubeconfig::read().map_err(|error| unusable(&error))?;
    kubeconfig.current_context.filter(|name| !name.is_empty()).ok_or_else(|| {
        Failure::usage("the kubeconfig has no current context").hint("name one with --kube-context")
    })
}

fn unusable(error: &dyn std::error::Error) -> Failure {
    let hint = "set KUBECONFIG to a file that kubectl can use; `kubectl config get-contexts` lists the contexts for --kube-context";
    Failure::usage(format!("failed to use the kubeconfig: {error}")).hint(hint)
}

/// Returns why the library of Kubernetes makes no configuration: it reads `NO_PROXY` as well, of which it takes less.
fn unusable_config(error: &KubeconfigError) -> Failure {
    let KubeconfigError::ParseNoProxy(why) = error else { return unusable(error) };
    let hint = if matches!(why, NoProxyError::EmptyValue) {
        let exceptions = proxy::variable(rota_telemetry::env::var, "NO_PROXY").unwrap_or_default();
        let kept: Vec<_> = exceptions.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
        format!("leave out its empty entries, between or after commas: NO_PROXY={}", kept.join(","))
    } else {
        "it has names, addresses and networks between commas, or `*` alone".to_owned()
    };
    Failure::usage(format!("failed to read NO_PROXY: {why}")).hint(hint)
}

/// Returns a client of the API server, and the namespace of its context.
async fn connect(context: Option<&str>) -> anyhow::Result<(Client, String)> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let kubeconfig = Kubeconfig::read().map_err(|error| unusable(&error))?;
    let named = proxy::named(&kubeconfig, context);
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| unusable_config(&error))?;
    let proxy = proxy::proxy_of(&config.cluster_url, named, rota_telemetry::env::var);
    config.proxy_url = proxy.map_err(|error| unusable(&error))?;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| unusable(&error))?;
    Ok((client, namespace))
}

/// Returns why a request to the API server failed: what was to be done, and the right that it needs, as `kubectl auth can-i` names it.
fn failed(error: &kube::Error, action: &str, right: &str) -> Failure {
    let (exit, cause, hint) = match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            let hint = format!("check the rights of the kubeconfig's user: kubectl auth can-i {right}");
            (Exit::Unreachable, status.message.clone(), hint)
        }
        kube::Error::Api(status) if status.code == 401 => {
            let hint = "sign in to the cluster again, as for kubectl";
            (Exit::Unreachable, status.message.clone(), hint.to_owned())
        }
        kube::Error::Api(status) if status.is_not_found() => {
            let hint = "check the installation: helm list --all-namespaces";
            (Exit::NotFound, status.message.clone(), hint.to_owned())
        }
        kube::Error::Api(status) => {
            let hint = "compare with the same request of kubectl";
            (Exit::Failed, status.message.clone(), hint.to_owned())
        }
        other => {
            let deepest = anyhow::Chain::new(other).last().map_or_else(String::new, ToString::to_string);
            let hint = "check the connection to the cluster: kubectl get --raw /version";
            (Exit::Unreachable, deepest, hint.to_owned())
        }
    };
    Failure::new(exit, format!("failed to {action}: {cause}")).hint(hint)
}
