//! Watch of the control plane's tasks: fills the cache and triggers the resources that the tasks belong to, also when the
//! cause of their wait has changed.

use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use rota_crds::resource::Task;
use rota_proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cache::TaskCache;
use crate::Error;
use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::controller;
use crate::kind::Guarded;

pub(crate) type Stores = controller::Stores<Task>;

/// Watches all tasks until `shutdown`. Requests a sweep through `sweep` when changes may have been missed.
pub(crate) async fn run(
    context: Context,
    stores: Stores,
    cache: Arc<TaskCache>,
    sweep: mpsc::Sender<()>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut tasks = context.control.watch_tasks("namespaces/-", "", true);
    loop {
        let response = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            routes = context.waits.changed() => {
                for record in cache.waiting(&routes) {
                    trigger_record(&stores, &record).await;
                }
                continue;
            }
            response = tasks.next() => response,
        };
        let response = match response {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Error::Ended("task stream")),
        };
        if response.resync {
            tracing::info!("task changes may have been missed, reconciling all tasks");
            // First, since a restored store runs tasks again that have ended. A pending request suffices.
            let _ = sweep.try_send(());
            cache.clear();
            trigger_all(&stores).await;
        }
        if let Some(task) = response.task {
            apply_change(&context, &stores, &cache, task).await;
        }
    }
}

async fn apply_change(context: &Context, stores: &Stores, cache: &TaskCache, record: v1::Task) {
    if record.labels.get(CLUSTER).map(String::as_str) != Some(&context.cluster) {
        return;
    }
    let Some((namespace, _)) = rota_proto::names::parse(&record.name, "tasks") else { return };
    let reference = ObjectRef::<Guarded<Task>>::new(&record.alias).within(namespace);
    for (store, trigger) in stores.iter() {
        // A record without a resource is left to the sweep: nothing would remove it from the cache.
        let ours = store.get(&reference).is_some_and(|task| task.uid().as_deref() == Some(&record.uid));
        if ours {
            cache.insert(record);
            let _ = trigger.send(reference).await;
            return;
        }
    }
}

/// Triggers the resource of a record.
async fn trigger_record(stores: &Stores, record: &v1::Task) {
    let Some((namespace, _)) = rota_proto::names::parse(&record.name, "tasks") else { return };
    let reference = ObjectRef::<Guarded<Task>>::new(&record.alias).within(namespace);
    for (store, trigger) in stores.iter() {
        if store.get(&reference).is_some_and(|task| task.uid().as_deref() == Some(&record.uid)) {
            let _ = trigger.send(reference).await;
            return;
        }
    }
}

async fn trigger_all(stores: &Stores) {
    for (store, trigger) in stores.iter() {
        for task in store.state() {
            let _ = trigger.send(ObjectRef::from_obj(task.as_ref())).await;
        }
    }
}
