//! Cancels workflows whose resource was deleted. As tasks, workflows have no finalizer: an unavailable control plane never blocks
//! the deletion of an object or its namespace; cancellations that failed then are made up for here.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::Api;
use rota_client::Code;
use rota_crds::resource::Workflow;
use rota_proto::{names, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Stores;
use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::error::ReconcileError;

const SWEEP_INTERVAL: Duration = Duration::from_secs(180);
/// Delay before a sweep after a cancellation failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
const CANCEL_REASON: &str = "the Workflow resource was deleted, or moved to another class";

/// Cancels workflows until `shutdown`: those that `deleted` names, and those that a periodic sweep finds.
pub(super) async fn run(
    context: Context,
    stores: Stores,
    mut deleted: mpsc::Receiver<String>,
    shutdown: CancellationToken,
) {
    for (store, _) in stores.iter() {
        tokio::select! {
            () = shutdown.cancelled() => return,
            ready = store.wait_until_ready() => if ready.is_err() { return },
        }
    }
    let monitor = context
        .health
        .background_tasks
        .register("workflow-sweep", "Cancels workflows whose resource was deleted");
    let mut next = Instant::now();
    loop {
        let swept = tokio::select! {
            () = shutdown.cancelled() => return,
            name = deleted.recv() => {
                let Some(name) = name else { return };
                // Failed cancellations are only found again by a sweep.
                if cancel(&context, name).await.is_err() {
                    next = next.min(Instant::now() + RETRY_INTERVAL);
                }
                continue;
            }
            () = tokio::time::sleep_until(next) => cancel_orphans(&context).await,
        };
        let activation = monitor.activate();
        next = Instant::now()
            + match swept {
                Ok(()) => {
                    activation.succeeded();
                    SWEEP_INTERVAL
                }
                Err(error) => {
                    activation.failed(&error);
                    context.health.failed("workflow", "sweep");
                    tracing::warn!(%error, "failed to cancel workflows whose resource was deleted, retrying");
                    RETRY_INTERVAL
                }
            };
    }
}

/// Cancels the open workflows of this cluster that have no resource.
async fn cancel_orphans(context: &Context) -> Result<(), ReconcileError> {
    use v1::WorkflowState::{Paused, Running};
    let filter = v1::WorkflowFilter {
        // Others end by themselves.
        states: [Running, Paused].map(i32::from).to_vec(),
        labels: [(CLUSTER.to_owned(), context.cluster.to_string())].into(),
        ..Default::default()
    };
    for record in context.control.all_workflows("namespaces/-", filter).await? {
        let Some((namespace, _)) = names::parse(&record.name, "workflows") else { continue };
        let is_cancelled = record.status.as_ref().is_some_and(|status| status.cancelled);
        if is_cancelled || !context.watches(namespace) {
            continue;
        }
        // The cluster is asked rather than the store of resources, which may lag behind what the previous leader saw.
        let workflows: Api<Workflow> = Api::namespaced(context.kube.clone(), namespace);
        let found = workflows.get_metadata_opt(&record.alias).await?;
        let class = &context.options.class;
        let exists = found
            .is_some_and(|one| one.uid().as_deref() == Some(&record.uid) && class.contains(&one.metadata));
        if !exists {
            tracing::info!(workflow = record.name, "cancelling a workflow whose resource was deleted");
            cancel(context, record.name).await?;
        }
    }
    Ok(())
}

/// Cancels a workflow whose resource was deleted. A missing or finished one is no error.
pub(super) async fn cancel(context: &Context, name: String) -> Result<(), ReconcileError> {
    let request = v1::CancelWorkflowRequest { name: name.clone(), reason: CANCEL_REASON.to_owned() };
    match context.control.cancel_workflow(request).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code, Code::NotFound | Code::FailedPrecondition) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, workflow = name, "failed to cancel a workflow");
            Err(error.into())
        }
    }
}
