//! Kubernetes operator: turns `Agent`, `Task`, `Workflow`, `WorkflowTemplate` and `Schedule` resources into calls of the
//! API and into worker pods.
//!
//! A client of the control plane: it never opens the store, reads no user Secret and never writes a user's spec.
//! Everything it acts on arrives as a stream: resources and pods from the cluster, demand and task changes from the
//! control plane. Several operators may run; one holds the lease and works, the others wait.
//!
//! # Main types
//!
//! - [`Options`] with [`Options::run`]: entry point; `run.rs` wires everything else.
//! - `controller::Reconciler`: reconciles one object; `controller::run` drives it with concurrency, backoff and triggers.
//! - `agent::Agents`: reconciler of `Agent` resources. Registers the agent, scales its worker pods, writes its status.
//! - `task::Tasks`: reconciler of `Task` resources. Creates the task record once, follows it, writes its status.
//! - `workflow::Workflows`: reconciler of `Workflow` resources.
//! - `stored::StoredObjects`: reconciler of the kinds of which the control plane keeps a record of the same name, which are
//!   `stored::StoredKind`: `Schedule` and `WorkflowTemplate`.
//! - `trust`: certificate authority, server certificate and admin token, kept as Secrets.
//! - `context::Context`: clients and settings that every reconciler receives.
//!
//! # Data flow
//!
//! Each resource has a folder with one file per step; the middle ones are pure:
//!
//! | step | file | does |
//! | --- | --- | --- |
//! | dereference | `dereference.rs` | collects what the object refers to: pods, demand, the task record |
//! | validate | `validate.rs` | checks what the CEL rules of the cluster cannot |
//! | build | `build.rs` | decides what to do |
//! | apply | `apply.rs` | calls the cluster and the control plane; every call may be repeated |
//! | status | `status.rs` | derives the status, conditions and when they are worth a write |
//!
//! `pods.rs`, `agent/demand.rs` and `task/watch.rs` fill caches from streams and trigger the objects concerned.
//! `agent/finalize.rs`, `task/sweep.rs` and `workflow/sweep.rs` clean up in the control plane after deleted resources: there are no
//! finalizers, so that an unavailable control plane never blocks a deletion.
//!
//! # Extending
//!
//! A new field of a pod belongs in `agent/pod.rs`, a new reason for waiting in `task/status.rs`, a new kind in a folder
//! of its own with a `Reconciler` that `run.rs` starts, or a `StoredKind` if the control plane keeps it under its own name. Read `agent/mod.rs` first, then `agent/build.rs` and
//! `task/mod.rs`.

mod agent;
mod backoff;
mod class;
mod cluster;
mod condition;
mod context;
mod control_plane;
mod control_store;
mod controller;
mod error;
mod health;
mod kind;
mod lease;
mod lease_record;
mod lifetime;
#[cfg(test)]
mod limits;
mod pods;
mod run;
mod schedule;
#[cfg(feature = "clap")]
mod settings;
mod stored;
mod task;
mod template;
mod terminating;
mod trust;
mod workflow;

pub use self::class::Class;
pub use self::error::Error;

use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use rota_crds::Egress;

#[cfg(feature = "clap")]
pub use settings::Settings;

/// Options of the operator, as its caller puts them together.
#[derive(Debug, Clone)]
pub struct Options {
    /// Endpoint of the control plane, for example `https://rota.rota.svc:7420`.
    pub endpoint: String,
    /// File with the operator's token, which the cluster renews.
    pub token_file: PathBuf,
    /// Namespace of the operator, its Secrets and its lease.
    pub namespace: String,
    /// Identity of this replica in the lease: the name of its pod.
    pub identity: String,
    /// Namespaces to watch; empty means all.
    pub watch_namespaces: Vec<String>,
    /// Class of the objects to reconcile. Objects of other classes belong to other installations.
    pub class: Class,
    /// Service of the control plane, whose names its certificate covers.
    pub service: String,
    /// Secret with the certificate of the control plane.
    pub tls_secret: String,
    /// Whether that Secret belongs to another controller: it is only read.
    pub tls_existing: bool,
    /// Further names and addresses that the certificate covers.
    pub extra_names: Vec<String>,
    /// Secret with the certificate authority and its key.
    pub ca_secret: String,
    /// Secret with the admin token.
    pub admin_token_secret: String,
    /// Lease that elects the leader among the operators.
    pub lease: String,
    /// Image and connection of the worker pods.
    pub workers: WorkerOptions,
    /// Address of the HTTP listener for probes and metrics.
    pub http_listen: Option<SocketAddr>,
}

/// Defaults of worker pods.
#[derive(Debug, Clone, Default)]
pub struct WorkerOptions {
    /// Image of agents that do not set one.
    pub image: String,
    /// Image with this program, which is copied into the containers of agents with an image of their own.
    pub program_image: String,
    /// `Always`, `IfNotPresent` or `Never`; defaults to the cluster's policy.
    pub image_pull_policy: Option<String>,
    /// Endpoint of the control plane for workers.
    pub endpoint: String,
    /// Class of the installation that the pods belong to.
    pub class: Class,
    /// User and group id of the workers' processes; `None` leaves them to the cluster.
    pub user_id: Option<i64>,
    /// Template of all worker pods; the fields of their agents take precedence.
    pub pod_template: PodTemplateSpec,
    /// Destinations that pods may reach whose agents leave it open.
    pub egress: Egress,
    /// Whether agents may only narrow it.
    pub egress_is_limit: bool,
    /// Namespace of the control plane, which every policy lets pods reach.
    pub control_namespace: String,
    /// Environment variables that configure the export of telemetry.
    pub collector: Vec<(String, String)>,
}
