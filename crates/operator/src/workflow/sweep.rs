//! Cancels workflows whose resource was deleted, or has ended while the control plane was restored from a backup. As tasks,
//! workflows have no finalizer: an unavailable control plane never blocks the deletion of an object or its namespace; cancellations
//! that failed then are made up for here.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use rota_client::Code;
use rota_crds::resource::Workflow;
use rota_proto::{names, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Stores;
use super::status::is_final;
use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::controller::Synced;
use crate::error::ReconcileError;
use crate::kind::Guarded;

const SWEEP_INTERVAL: Duration = Duration::from_secs(180);
/// Delay before a sweep after a cancellation failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Cancellations in progress at a time.
const CONCURRENCY: usize = 16;
const CANCEL_REASON: &str = "the Workflow resource was deleted, or moved to another class";
const RESTORED_REASON: &str = "the Workflow resource has ended; the control plane was restored from a backup";

/// Cancels workflows until `shutdown`: those that `deleted` names, and those that a sweep finds, periodically and after the control
/// plane was restored.
pub(super) async fn run(
    context: Context,
    stores: Stores,
    synced: Synced,
    deleted: mpsc::Receiver<String>,
    shutdown: CancellationToken,
) {
    if !synced.wait(&shutdown).await {
        return;
    }
    let (failed, failures) = mpsc::channel(1);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = cancel_deleted(&context, deleted, failed) => {}
        () = sweep(&context, &stores, failures) => {}
    }
}

async fn cancel_deleted(context: &Context, mut deleted: mpsc::Receiver<String>, failed: mpsc::Sender<()>) {
    let mut batch = Vec::new();
    while deleted.recv_many(&mut batch, CONCURRENCY).await > 0 {
        if !cancel_all(context, std::mem::take(&mut batch), CANCEL_REASON).await {
            // Those are only found again by a sweep. A pending request suffices.
            let _ = failed.try_send(());
        }
    }
}

async fn sweep(context: &Context, stores: &Stores, mut failures: mpsc::Receiver<()>) {
    let monitor = context
        .health
        .background_tasks
        .register("workflow-sweep", "Cancels workflows whose resource was deleted");
    let mut generations = context.store.generations();
    let mut delay = Duration::ZERO;
    loop {
        let next = Instant::now() + delay;
        tokio::select! {
            Some(()) = failures.recv() => tokio::time::sleep(RETRY_INTERVAL).await,
            // A restored store runs workflows again that have ended.
            Ok(()) = generations.changed() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        let activation = monitor.activate();
        delay = match cancel_orphans(context, stores).await {
            Ok(true) => {
                activation.succeeded();
                SWEEP_INTERVAL
            }
            Ok(false) => {
                activation.failed("cancellation failed; see the log");
                RETRY_INTERVAL
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

/// Cancels the open workflows of this cluster that have no resource, or one that has ended. Returns whether all were cancelled.
async fn cancel_orphans(context: &Context, stores: &Stores) -> Result<bool, ReconcileError> {
    use v1::WorkflowState::{Paused, Running};
    let filter = v1::WorkflowFilter {
        // Others end by themselves.
        states: [Running, Paused].map(i32::from).to_vec(),
        labels: [(CLUSTER.to_owned(), context.cluster.to_string())].into(),
        ..Default::default()
    };
    let (mut ended, mut missing) = (Vec::new(), Vec::new());
    // Records first: each was created from a resource that existed before, so a missing resource was deleted.
    for record in context.control.all_workflows("namespaces/-", filter).await? {
        let Some((namespace, _)) = names::parse(&record.name, "workflows") else { continue };
        let is_cancelled = record.status.as_ref().is_some_and(|status| status.cancelled);
        if is_cancelled || !context.watches(namespace) {
            continue;
        }
        match resource(stores, namespace, &record) {
            Some(resource) if has_ended(&resource) => ended.push(record.name),
            Some(_) => {}
            None => missing.push(record),
        }
    }
    if !ended.is_empty() {
        let count = ended.len();
        tracing::warn!(
            count,
            "cancelling workflows that have ended: the control plane was restored from a backup"
        );
    }
    // Before any other request: until they are cancelled, they run again.
    let mut all = cancel_all(context, ended, RESTORED_REASON).await;
    let orphans: Vec<_> = futures::stream::iter(missing)
        .map(|record| async move {
            // The store may lag behind what the previous leader saw; the cluster does not.
            let is_orphan = !exists(context, &record).await?;
            Ok::<_, ReconcileError>(is_orphan.then_some(record.name))
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    all &= cancel_all(context, orphans.into_iter().flatten().collect(), CANCEL_REASON).await;
    Ok(all)
}

/// Returns the resource of a record, as far as it is known here.
fn resource(stores: &Stores, namespace: &str, record: &v1::Workflow) -> Option<Arc<Guarded<Workflow>>> {
    let reference = ObjectRef::<Guarded<Workflow>>::new(&record.alias).within(namespace);
    let same = |workflow: &Arc<Guarded<Workflow>>| workflow.uid().as_deref() == Some(&record.uid);
    stores.iter().find_map(|(store, _)| store.get(&reference).filter(same))
}

/// Returns whether the status of a resource is final although it has a record.
fn has_ended(workflow: &Guarded<Workflow>) -> bool {
    let status = workflow.0.as_ref().ok().and_then(|workflow| workflow.status.as_ref());
    status.is_some_and(|status| status.workflow_id.is_some() && is_final(status.phase))
}

async fn exists(context: &Context, record: &v1::Workflow) -> Result<bool, kube::Error> {
    let Some((namespace, _)) = names::parse(&record.name, "workflows") else { return Ok(true) };
    let workflows: Api<Workflow> = Api::namespaced(context.kube.clone(), namespace);
    let found = workflows.get_metadata_opt(&record.alias).await?;
    let class = &context.options.class;
    Ok(found.is_some_and(|one| one.uid().as_deref() == Some(&record.uid) && class.contains(&one.metadata)))
}

/// Returns whether all were cancelled.
async fn cancel_all(context: &Context, names: Vec<String>, reason: &str) -> bool {
    futures::stream::iter(names)
        .map(|name| cancel_record(context, name, reason))
        .buffer_unordered(CONCURRENCY)
        .fold(true, |all, one| std::future::ready(all && one.is_ok()))
        .await
}

/// Cancels a workflow whose resource was deleted. A missing or finished one is no error.
pub(super) async fn cancel(context: &Context, name: String) -> Result<(), ReconcileError> {
    cancel_record(context, name, CANCEL_REASON).await
}

async fn cancel_record(context: &Context, name: String, reason: &str) -> Result<(), ReconcileError> {
    let request =
        v1::CancelWorkflowRequest { name: name.clone(), reason: reason.to_owned(), ..Default::default() };
    match context.control.cancel_workflow(request).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code, Code::NotFound | Code::FailedPrecondition) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, workflow = name, reason, "failed to cancel a workflow");
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restored_records_of_ended_resources_are_cancelled() {
        let workflow = |status: &str| -> Guarded<Workflow> {
            let head =
                "apiVersion: rota.dev/v1alpha1, kind: Workflow, metadata: {name: x}, spec: {template: a}";
            serde_saphyr::from_str(&format!("{{{head}, status: {status}}}")).unwrap()
        };
        assert!(has_ended(&workflow("{phase: Succeeded, workflowId: u}")));
        assert!(!has_ended(&workflow("{phase: Running, workflowId: u}")));
        assert!(!has_ended(&workflow("{phase: Failed}")), "it was never accepted");
    }
}
