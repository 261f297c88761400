//! Helpers of the end-to-end tests: a real cluster with an installed Rota, used through `kubectl`, `helm` and `rota`.
//! Failures panic with the observed state. Must not know internals of the control plane.
#![expect(clippy::panic, reason = "test helpers report failures by panics")]

mod audit;
mod command;
mod control;
mod model;
mod outage;
mod pod_watch;
mod procfs;
mod rule_costs;
mod space;
mod until;
mod usage;

pub use audit::{Audit, Call};
pub use command::{Output, run, run_with};
pub use control::{Control, rota_with_kubeconfig};
pub use model::MODEL;
pub use outage::Outage;
pub use pod_watch::{PodWatch, is_active, startup_seconds};
pub use procfs::processes;
pub use rule_costs::RuleCosts;
pub use space::Space;
pub use until::{holds, until};
pub use usage::{Component, Usage};

/// Name and namespace of the release.
pub const RELEASE: &str = "rota";

/// Connects to the cluster.
pub async fn client() -> kube::Client {
    kube::Client::try_default().await.unwrap_or_else(|error| {
        panic!("failed to connect to the cluster: {error}; `make e2e` starts one and runs the tests in it")
    })
}
