//! Ends tasks whose resource is gone. There is no finalizer on tasks, so that a control plane that is
//! down never keeps an object or its namespace from going; what it could not be told then, it is told here.

use std::time::Duration;

use futures::StreamExt;
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use rota_client::Code;
use rota_crds::resource::Task;
use rota_proto::{names, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::Stores;
use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::controller::{Failure, Guarded};

/// Between two sweeps when nothing is wrong.
const INTERVAL: Duration = Duration::from_secs(180);
/// And when something could not be told.
const SOON: Duration = Duration::from_secs(3);
/// Cancellations that are under way at a time.
const CONCURRENCY: usize = 16;
const REASON: &str = "its resource was deleted";

/// A resource that is gone.
#[derive(Debug)]
pub(crate) struct Gone {
    pub namespace: String,
    pub uid: String,
}

impl Gone {
    pub(super) fn of(task: &Task) -> Self {
        Self { namespace: task.namespace().unwrap_or_default(), uid: task.uid().unwrap_or_default() }
    }
}

/// Runs until `shutdown`. `gone` names what was just deleted; `missed` asks for a sweep.
pub(crate) async fn run(
    context: Context,
    stores: Stores,
    mut gone: mpsc::Receiver<Gone>,
    mut missed: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) {
    for (store, _) in stores.iter() {
        tokio::select! {
            () = shutdown.cancelled() => return,
            ready = store.wait_until_ready() => if ready.is_err() { return },
        }
    }
    let beat = context.health.loops.enter("sweep", "Ends tasks whose resource is gone");
    let mut next = Instant::now();
    let mut names = Vec::with_capacity(CONCURRENCY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            count = gone.recv_many(&mut names, CONCURRENCY) => {
                if count == 0 {
                    return;
                }
                let told = futures::stream::iter(names.drain(..))
                    .map(|gone| cancel(&context, gone))
                    .buffer_unordered(CONCURRENCY)
                    .fold(true, |all, one| std::future::ready(all && one.is_ok()))
                    .await;
                // Only a sweep makes up for what could not be told, however well later ones are.
                if !told {
                    next = next.min(Instant::now() + SOON);
                }
                continue;
            }
            Some(()) = missed.recv() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        let round = beat.round();
        let wait = if sweep(&context, &stores).await {
            round.succeeded();
            INTERVAL
        } else {
            round.failed("the control plane could not be told; see the log");
            SOON
        };
        next = Instant::now() + wait;
    }
}

/// Whether everything could be told.
async fn sweep(context: &Context, stores: &Stores) -> bool {
    match all(context, stores).await {
        Ok(0) => true,
        Ok(count) => {
            tracing::info!(count, "ended tasks whose resource was gone");
            true
        }
        Err(failure) => {
            context.health.failed("sweep", "sweep");
            tracing::warn!(%failure, "tasks whose resource is gone could not be ended yet");
            false
        }
    }
}

async fn all(context: &Context, stores: &Stores) -> Result<usize, Failure> {
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
    let mut count = 0;
    // Records first: each was made from a resource that was there then, so one that is not there now is gone.
    for record in context.control.all_tasks(request, None).await? {
        let Some((namespace, _)) = names::parse(&record.name, "tasks") else { continue };
        if !context.watches(namespace) {
            continue;
        }
        let reference = ObjectRef::<Guarded<Task>>::new(&record.alias).within(namespace);
        let here = stores.iter().any(|(store, _)| {
            store.get(&reference).is_some_and(|task| task.uid().as_deref() == Some(&record.uid))
        });
        // The cache may lag behind whoever led before us; the cluster itself does not.
        if here || exists(&context.kube, namespace, &record).await? {
            continue;
        }
        cancel(context, Gone { namespace: namespace.to_owned(), uid: record.uid }).await?;
        count += 1;
    }
    Ok(count)
}

async fn exists(client: &Client, namespace: &str, record: &v1::Task) -> Result<bool, kube::Error> {
    let tasks: Api<Task> = Api::namespaced(client.clone(), namespace);
    let found = tasks.get_metadata_opt(&record.alias).await?;
    Ok(found.is_some_and(|task| task.uid().as_deref() == Some(&record.uid)))
}

/// Asks for the end of a task. One that does not exist, or has ended, needs nothing.
pub(super) async fn cancel(context: &Context, gone: Gone) -> Result<(), Failure> {
    let name = names::task(&gone.namespace, &gone.uid);
    let request = v1::CancelTaskRequest { name, reason: REASON.to_owned() };
    match context.control.cancel_task(request).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code, Code::NotFound | Code::FailedPrecondition) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, uid = gone.uid, "a task could not be told that its resource is gone");
            Err(error.into())
        }
    }
}
