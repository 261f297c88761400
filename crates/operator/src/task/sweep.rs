//! Cancels tasks whose resource was deleted, or has ended while the control plane was restored from a backup. Tasks have no finalizer, so that an unavailable control plane never blocks the
//! deletion of an object or its namespace; cancellations that failed then are made up for here.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use rota_client::Code;
use rota_crds::resource::Task;
use rota_proto::{names, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::status::is_final;
use super::watch::Stores;
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
const CANCEL_REASON: &str = "the Task resource was deleted, or moved to another class";
const RESTORED_REASON: &str = "the Task resource has ended; the control plane was restored from a backup";

/// `Task` resource that was deleted.
#[derive(Debug)]
pub(crate) struct DeletedTask {
    pub namespace: String,
    pub uid: String,
}

impl DeletedTask {
    pub(super) fn of(task: &Task) -> Self {
        Self { namespace: task.namespace().unwrap_or_default(), uid: task.uid().unwrap_or_default() }
    }
}

/// Cancels tasks until `shutdown`: those that `deleted` names, and those that a periodic or requested sweep finds.
pub(crate) async fn run(
    context: Context,
    stores: Stores,
    synced: Synced,
    mut deleted: mpsc::Receiver<DeletedTask>,
    mut requests: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) {
    if !synced.wait(&shutdown).await {
        return;
    }
    let monitor =
        context.health.background_tasks.register("sweep", "Cancels tasks whose resource was deleted");
    let mut generations = context.store.generations();
    let mut next = Instant::now();
    let mut batch = Vec::with_capacity(CONCURRENCY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            count = deleted.recv_many(&mut batch, CONCURRENCY) => {
                if count == 0 {
                    return;
                }
                let all_cancelled = futures::stream::iter(batch.drain(..))
                    .map(|task| cancel(&context, task))
                    .buffer_unordered(CONCURRENCY)
                    .fold(true, |all, one| std::future::ready(all && one.is_ok()))
                    .await;
                // Failed cancellations are only found again by a sweep.
                if !all_cancelled {
                    next = next.min(Instant::now() + RETRY_INTERVAL);
                }
                continue;
            }
            Some(()) = requests.recv() => {}
            // A restored store runs tasks again that have ended.
            Ok(()) = generations.changed() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        let activation = monitor.activate();
        let delay = if sweep(&context, &stores).await {
            activation.succeeded();
            SWEEP_INTERVAL
        } else {
            activation.failed("cancellation failed; see the log");
            RETRY_INTERVAL
        };
        next = Instant::now() + delay;
    }
}

/// Returns whether all tasks without a resource were cancelled.
async fn sweep(context: &Context, stores: &Stores) -> bool {
    match cancel_orphans(context, stores).await {
        Ok(0) => true,
        Ok(count) => {
            tracing::info!(count, "cancelled tasks whose resource was deleted or has ended");
            true
        }
        Err(error) => {
            context.health.failed("sweep", "sweep");
            tracing::warn!(%error, "failed to cancel tasks whose resource was deleted, retrying");
            false
        }
    }
}

async fn cancel_orphans(context: &Context, stores: &Stores) -> Result<usize, ReconcileError> {
    use v1::TaskState::{Assigned, InputRequired, Pending, Queued, Running};
    let filter = v1::TaskFilter {
        states: [Pending, Queued, Assigned, Running, InputRequired].map(i32::from).to_vec(),
        labels: [(CLUSTER.to_owned(), context.cluster.to_string())].into(),
        ..Default::default()
    };
    let request = v1::ListTasksRequest {
        parent: "namespaces/-".to_owned(),
        filter: Some(filter),
        ..Default::default()
    };
    // Records first: each was created from a resource that existed before, so a missing resource was deleted.
    let mut ended = Vec::new();
    let mut missing = Vec::new();
    for record in context.control.all_tasks(request, None).await? {
        let Some((namespace, _)) = names::parse(&record.name, "tasks") else { continue };
        if !context.watches(namespace) {
            continue;
        }
        let name = names::task(namespace, &record.uid);
        match resource(stores, namespace, &record) {
            Some(resource) if has_ended(&resource) => ended.push(name),
            Some(_) => {}
            None => missing.push((namespace.to_owned(), name, record)),
        }
    }
    let count = ended.len();
    if count > 0 {
        tracing::warn!(
            count,
            "cancelling tasks that have ended: the control plane was restored from a backup"
        );
    }
    // Before any other request: until they are cancelled, they run again.
    futures::stream::iter(ended)
        .map(|name| cancel_record(context, name, RESTORED_REASON))
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    // Thousands if a namespace was deleted with all its tasks.
    let orphans: Vec<bool> = futures::stream::iter(missing)
        .map(|(namespace, name, record)| async move {
            // The store may lag behind what the previous leader saw; the cluster does not.
            if exists(context, &namespace, &record).await? {
                return Ok::<_, ReconcileError>(false);
            }
            cancel_record(context, name, CANCEL_REASON).await?;
            Ok(true)
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    Ok(count + orphans.into_iter().filter(|is_cancelled| *is_cancelled).count())
}

/// Returns the resource of a record, as far as it is known here.
fn resource(stores: &Stores, namespace: &str, record: &v1::Task) -> Option<Arc<Guarded<Task>>> {
    let reference = ObjectRef::<Guarded<Task>>::new(&record.alias).within(namespace);
    let same = |task: &Arc<Guarded<Task>>| task.uid().as_deref() == Some(&record.uid);
    stores.iter().find_map(|(store, _)| store.get(&reference).filter(same))
}

async fn exists(context: &Context, namespace: &str, record: &v1::Task) -> Result<bool, kube::Error> {
    let tasks: Api<Task> = Api::namespaced(context.kube.clone(), namespace);
    let found = tasks.get_metadata_opt(&record.alias).await?;
    let class = &context.options.class;
    Ok(found.is_some_and(|task| task.uid().as_deref() == Some(&record.uid) && class.contains(&task.metadata)))
}

/// Returns whether the status of a resource is final. Its record has not ended only if the control plane was restored
/// from a backup: it would run the task again.
fn has_ended(task: &Guarded<Task>) -> bool {
    let status = task.0.as_ref().ok().and_then(|task| task.status.as_ref());
    status.is_some_and(|status| status.task_id.is_some() && is_final(status.phase))
}

/// Cancels a task whose resource was deleted. A missing or finished one is no error.
pub(super) async fn cancel(context: &Context, task: DeletedTask) -> Result<(), ReconcileError> {
    cancel_record(context, names::task(&task.namespace, &task.uid), CANCEL_REASON).await
}

async fn cancel_record(context: &Context, name: String, reason: &str) -> Result<(), ReconcileError> {
    let request = v1::CancelTaskRequest { name: name.clone(), reason: reason.to_owned() };
    match context.control.cancel_task(request).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code, Code::NotFound | Code::FailedPrecondition) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, task = name, reason, "failed to cancel a task");
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restored_records_of_ended_resources_are_cancelled() {
        let task = |status: &str| -> Guarded<Task> {
            let head = "apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {name: x}, spec: {agent: a}";
            serde_saphyr::from_str(&format!("{{{head}, status: {status}}}")).unwrap()
        };
        assert!(has_ended(&task("{phase: Succeeded, taskId: u}")));
        assert!(!has_ended(&task("{phase: Running, taskId: u}")));
        assert!(!has_ended(&task("{phase: Failed}")), "it was never accepted");
    }
}
