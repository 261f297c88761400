//! Unregisters agents whose resource was deleted: immediately when the deletion is observed, otherwise by a periodic sweep.

use std::time::Duration;

use kube::runtime::reflector::{ObjectRef, Store};
use rota_crds::resource::Agent;
use rota_proto::names;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{apply, network};
use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::controller::Synced;
use crate::error::ReconcileError;
use crate::kind::Guarded;

const SWEEP_INTERVAL: Duration = Duration::from_secs(300);
/// Interval while policies wait for the last pod of their agent.
const POLICY_INTERVAL: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// Sweeps until `shutdown`: periodically, and whenever `deleted` receives a signal.
pub(super) async fn run(
    context: Context,
    stores: Vec<Store<Guarded<Agent>>>,
    synced: Synced,
    mut deleted: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) {
    if !synced.wait(&shutdown).await {
        return;
    }
    let mut delay = Duration::ZERO;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            signal = deleted.recv() => if signal.is_none() { return },
            () = tokio::time::sleep(delay) => {}
        }
        delay = match sweep(&context, &stores).await {
            Ok(false) => SWEEP_INTERVAL,
            Ok(true) => POLICY_INTERVAL,
            Err(error) => {
                context.health.failed("agent", "sweep");
                tracing::warn!(%error, "failed to unregister agents whose resource was deleted, retrying");
                RETRY_INTERVAL
            }
        };
    }
}

/// Returns whether policies of deleted agents are left, for the sake of pods that end.
async fn sweep(context: &Context, stores: &[Store<Guarded<Agent>>]) -> Result<bool, ReconcileError> {
    let exists = |namespace: &str, name: &str| {
        let reference = ObjectRef::<Guarded<Agent>>::new(name).within(namespace);
        stores.iter().any(|store| store.get(&reference).is_some())
    };
    for agent in context.control.all_agents("namespaces/-").await? {
        let Some((namespace, name)) = names::parse(&agent.name, "agents") else { continue };
        // Agents of other clusters, and those created through the API, are not managed here.
        let ours = agent.labels.get(CLUSTER).map(String::as_str) == Some(&context.cluster);
        if !ours || !context.watches(namespace) {
            continue;
        }
        if !exists(namespace, name) {
            tracing::info!(agent = agent.name, "Agent resource deleted, unregistering agent");
            apply::unregister(context, &agent.name).await?;
        }
    }
    network::sweep(context, exists).await
}
