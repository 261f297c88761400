//! Leader election between operators. Losing the lease ends the process: only then is it certain that two operators
//! never act at the same time.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube_lease_manager::LeaseManagerBuilder;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, MANAGER};
use crate::{Error, Options};

/// Validity of the lease after its last renewal.
const LEASE_SECONDS: u64 = 15;
/// Time before its expiry at which the lease is renewed.
const RENEW_BEFORE_SECONDS: u64 = 8;
/// Time allowed for releasing the lease on shutdown.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Leader lease that this operator holds.
#[derive(Debug)]
pub(crate) struct Leadership {
    lost: CancellationToken,
    release: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

/// Waits until this operator is the leader. Returns `None` on shutdown.
pub(crate) async fn acquire(
    client: &Client,
    options: &Options,
    shutdown: &CancellationToken,
) -> Result<Option<Leadership>, Error> {
    adopt(client, options).await?;
    let manager = LeaseManagerBuilder::new(client.clone(), &options.lease)
        .with_namespace(&options.namespace)
        .with_identity(&options.identity)
        .with_field_manager(format!("rota-operator-lease-{}", options.identity))
        .with_duration(LEASE_SECONDS)
        .with_grace(RENEW_BEFORE_SECONDS)
        .build()
        .await?;
    let (mut held, keeper) = manager.watch().await;
    tracing::info!(lease = options.lease, "waiting for the leader lease");
    while !*held.borrow_and_update() {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            changed = held.changed() => if changed.is_err() { return Err(Error::LeaseLost) },
        }
    }
    tracing::info!(lease = options.lease, identity = options.identity, "acquired the leader lease");
    let lost = CancellationToken::new();
    let (release, mut released) = oneshot::channel();
    let observer = lost.clone();
    let task = spawn("lease", OnExit::Done, async move {
        loop {
            tokio::select! {
                changed = held.changed() => if changed.is_err() || !*held.borrow_and_update() {
                    observer.cancel();
                    return;
                },
                _ = &mut released => break,
            }
        }
        // The manager releases the lease when its receiver is dropped.
        drop(held);
        let _ = keeper.await;
    });
    Ok(Some(Leadership { lost, release: Some(release), task: Some(task) }))
}

/// Makes the lease part of the release, so that it is deleted with it; one created by the manager would stay.
async fn adopt(client: &Client, options: &Options) -> Result<(), kube::Error> {
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(options.lease.clone()),
            labels: Some(cluster::labels("operator")),
            owner_references: cluster::owner(client, options).await?.map(|owner| vec![owner]),
            ..Default::default()
        },
        ..Default::default()
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    leases.patch(&options.lease, &PatchParams::apply(MANAGER), &Patch::Apply(&lease)).await?;
    Ok(())
}

impl Leadership {
    /// Completes when the lease is lost.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Releases the lease, so that another operator takes over immediately.
    pub(crate) async fn release(mut self) {
        self.release = None;
        if let Some(task) = self.task.take() {
            let _ = tokio::time::timeout(RELEASE_TIMEOUT, task).await;
        }
    }
}
