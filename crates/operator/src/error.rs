//! Errors of the operator as a whole, and of one reconciliation.

use std::net::SocketAddr;

use rota_client::Code;

/// Reason for which the operator stopped before shutdown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the Kubernetes API: {0}")]
    Kube(#[from] kube::Error),
    #[error("no Kubernetes cluster is configured: {0}")]
    Config(#[from] kube::config::InferConfigError),
    #[error("the leader lease: {0}")]
    Lease(#[from] kube_lease_manager::LeaseManagerError),
    /// Exiting is the one safe reaction: whatever this operator was about to do, the new leader does.
    #[error("the leader lease is lost: another operator may be the leader now")]
    LeaseLost,
    #[error("the control plane: {0}")]
    Control(#[from] rota_client::Error),
    #[error("failed to create a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the Secret {secret} cannot be used as the certificate of the control plane: {reason}")]
    ForeignCertificate { secret: String, reason: &'static str },
    #[error("failed to create a temporary directory: {0}")]
    Folder(#[source] std::io::Error),
    #[error("failed to listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error(
        "the cluster does not serve {kind} of rota.dev/v1alpha1; install the chart rota-crds, or rota with crds.enabled"
    )]
    NoCrd { kind: String },
    #[error("background task `{0}` exited unexpectedly")]
    Ended(&'static str),
}

/// Reason for which one object could not be reconciled. The object is retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("{0}")]
    Control(#[from] rota_client::Error),
    #[error("the NetworkPolicy {0} is not the operator's")]
    ForeignPolicy(String),
}

impl ReconcileError {
    /// Returns reason and message of conditions that are unknown because of this error. They do not change while the
    /// cause stays the same.
    pub(crate) fn condition(&self) -> (&'static str, String) {
        match self {
            Self::Control(error) if error.is_temporary() => (
                "ControlPlaneUnavailable",
                "the control plane does not respond; the operator retries".to_owned(),
            ),
            Self::Control(error) => ("ControlPlaneError", format!("the control plane: {}", error.message)),
            Self::ForeignPolicy(name) => (
                "ForeignNetworkPolicy",
                format!(
                    "the NetworkPolicy {name} is not the operator's, which does not overwrite it; rename or delete it"
                ),
            ),
            Self::Kube(kube::Error::Api(status)) => {
                ("ClusterError", format!("the Kubernetes API: {}", status.message))
            }
            Self::Kube(_) => {
                ("ClusterError", "the Kubernetes API does not respond; the operator retries".to_owned())
            }
        }
    }
}

/// Describes a request that the control plane rejected, with the fields concerned.
pub(crate) fn rejection_message(error: &rota_client::Error) -> String {
    let fields = error.fields.iter().map(|violation| format!("{}: {}", violation.field, violation.message));
    std::iter::once(error.message.clone()).chain(fields).collect::<Vec<_>>().join("; ")
}

/// Returns whether a request would be rejected again.
pub(crate) fn is_permanent(error: &rota_client::Error) -> bool {
    matches!(
        error.code,
        Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists | Code::OutOfRange
    )
}

/// Converts `AGENT_MISSING` and `agent_missing` to the form of Kubernetes reasons, `AgentMissing`.
pub(crate) fn camel_case(word: &str) -> String {
    let mut camel = String::with_capacity(word.len());
    for part in word.split(['_', '-', ' ']).filter(|part| !part.is_empty()) {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.extend(letters.map(|letter| letter.to_ascii_lowercase()));
    }
    camel
}
