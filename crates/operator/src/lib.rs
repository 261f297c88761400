//! Rota on Kubernetes: turns `Agent` and `Task` resources into calls of the API and into pods.
//!
//! It is only a client of the control plane and never opens a store. Everything that it must know
//! comes as a stream: resources and pods from the cluster, demand and tasks from the control plane.
//! A folder a resource, with five steps in a file each; the middle ones are pure:
//! dereference → validate → build → apply → status.

mod agent;
mod backoff;
mod cluster;
mod context;
mod controller;
mod health;
mod lead;
mod leaving;
mod run;
mod task;
mod trust;

use std::net::SocketAddr;
use std::path::PathBuf;

/// What it needs to be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The control plane, for example `https://rota.rota.svc:7420`.
    pub endpoint: String,
    /// The file with the token that proves who we are; a cluster renews it.
    pub token_file: PathBuf,
    /// Our own namespace: secrets, certificates and the lease are there.
    pub namespace: String,
    /// Our own name, for the lease: the pod's.
    pub identity: String,
    /// The Deployment that what we make in our namespace belongs to, so that it goes with the release.
    pub deployment: Option<String>,
    /// Namespaces whose resources are ours; none means all.
    pub watch_namespaces: Vec<String>,
    /// The Service that leads to the control plane: what its certificate is for.
    pub service: String,
    /// Secret with the control plane's certificate.
    pub tls_secret: String,
    /// Secret with the certificate authority's key.
    pub ca_secret: String,
    /// Secret with the token for people.
    pub admin_token_secret: String,
    /// The lease by which one of several operators leads.
    pub lease: String,
    /// What workers run.
    pub workers: WorkerOptions,
    /// Where health and metrics are told, in plain HTTP.
    pub http_listen: Option<SocketAddr>,
}

/// What workers run, unless their agent says otherwise.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Their image.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`; unset leaves it to the cluster.
    pub image_pull_policy: Option<String>,
    /// Where they find the control plane.
    pub endpoint: String,
    /// Variables by which they find the collector of spans.
    pub collector: Vec<(String, String)>,
}

/// Why it ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster does not answer, or refuses.
    #[error("the cluster: {0}")]
    Kube(#[from] kube::Error),
    /// No configuration for a cluster.
    #[error("no cluster is configured: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The lease cannot be used.
    #[error("the lease: {0}")]
    Lease(#[from] kube_lease_manager::LeaseManagerError),
    /// Another operator leads now. Ending is the one safe answer: whatever this one still meant to
    /// do, the other does.
    #[error("another operator leads now")]
    LeaseLost,
    /// The control plane refuses us.
    #[error("the control plane: {0}")]
    Control(#[from] rota_client::Error),
    /// Certificates.
    #[error("certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Files of our own cannot be kept.
    #[error("files for a moment cannot be kept: {0}")]
    Folder(#[source] std::io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The custom resources are not served.
    #[error("the cluster does not know {kind}s of rota.dev/v1alpha1; install the chart rota-crds first")]
    NoCrd {
        /// Which.
        kind: &'static str,
    },
    /// A loop ended that should not.
    #[error("{0} ended by itself")]
    Ended(&'static str),
}
