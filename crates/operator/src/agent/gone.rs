//! Takes agents back whose resource is gone: at once when that is seen, else by a sweep.

use std::time::Duration;

use kube::runtime::reflector::{ObjectRef, Store};
use rota_crds::resource::Agent;
use rota_proto::names;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::apply;
use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::controller::{Failure, Guarded};

const INTERVAL: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(3);

/// Runs until `shutdown`. `gone` says that something was deleted.
pub(super) async fn run(
    context: Context,
    stores: Vec<Store<Guarded<Agent>>>,
    mut gone: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) {
    for store in &stores {
        tokio::select! {
            () = shutdown.cancelled() => return,
            ready = store.wait_until_ready() => if ready.is_err() { return },
        }
    }
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            told = gone.recv() => if told.is_none() { return },
            () = tokio::time::sleep(wait) => {}
        }
        wait = match sweep(&context, &stores).await {
            Ok(()) => INTERVAL,
            Err(failure) => {
                context.health.failed("agent", "sweep");
                tracing::warn!(%failure, "agents whose resource is gone could not be taken back yet");
                SOON
            }
        };
    }
}

async fn sweep(context: &Context, stores: &[Store<Guarded<Agent>>]) -> Result<(), Failure> {
    for agent in context.control.all_agents("namespaces/-").await? {
        let Some((namespace, name)) = names::parse(&agent.name, "agents") else { continue };
        // Those of other clusters, and those made over the API, are none of ours.
        let ours = agent.labels.get(CLUSTER).map(String::as_str) == Some(&context.cluster);
        if !ours || !context.watches(namespace) {
            continue;
        }
        let reference = ObjectRef::<Guarded<Agent>>::new(name).within(namespace);
        if stores.iter().all(|store| store.get(&reference).is_none()) {
            tracing::info!(agent = agent.name, "its resource is gone; it is taken back");
            apply::forget(context, &agent.name).await?;
        }
    }
    Ok(())
}
