//! One operator of several leads. Losing the lease ends the process: that is the one way to be sure
//! that two never act at once.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube_lease_manager::LeaseManagerBuilder;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, MANAGER};
use crate::{Error, Options};

/// Seconds that a lease holds after it was last renewed.
const DURATION: u64 = 15;
/// It is renewed this many seconds before it would end.
const GRACE: u64 = 8;

/// Held while we lead.
#[derive(Debug)]
pub(crate) struct Lead {
    lost: CancellationToken,
    give_back: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

/// Waits until this operator leads; `None` when it was told to end first.
pub(crate) async fn acquire(
    client: &Client,
    options: &Options,
    shutdown: &CancellationToken,
) -> Result<Option<Lead>, Error> {
    own(client, options).await?;
    let manager = LeaseManagerBuilder::new(client.clone(), &options.lease)
        .with_namespace(&options.namespace)
        .with_identity(&options.identity)
        .with_field_manager(format!("rota-operator-lease-{}", options.identity))
        .with_duration(DURATION)
        .with_grace(GRACE)
        .build()
        .await?;
    let (mut held, keeper) = manager.watch().await;
    tracing::info!(lease = options.lease, "waiting for the lease");
    while !*held.borrow_and_update() {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            changed = held.changed() => if changed.is_err() { return Err(Error::LeaseLost) },
        }
    }
    tracing::info!(lease = options.lease, identity = options.identity, "this operator leads");
    let lost = CancellationToken::new();
    let (give_back, mut given_back) = oneshot::channel();
    let told = lost.clone();
    let task = spawn("lease", OnExit::Done, async move {
        loop {
            tokio::select! {
                changed = held.changed() => if changed.is_err() || !*held.borrow_and_update() {
                    told.cancel();
                    return;
                },
                _ = &mut given_back => break,
            }
        }
        // The manager gives the lease back when nobody listens any more.
        drop(held);
        let _ = keeper.await;
    });
    Ok(Some(Lead { lost, give_back: Some(give_back), task: Some(task) }))
}

/// Lets the lease go with the release. Its manager makes one that would stay.
async fn own(client: &Client, options: &Options) -> Result<(), kube::Error> {
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

impl Lead {
    /// Ends when the lease is lost.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Lets another lead at once.
    pub(crate) async fn give_back(mut self) {
        self.give_back = None;
        if let Some(task) = self.task.take() {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), task).await;
        }
    }
}
