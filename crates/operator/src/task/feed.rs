//! Hears of every change of a task from the control plane, and wakes the resource that it belongs to.

use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use rota_crds::resource::Task;
use rota_proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::mirror::Mirror;
use crate::Error;
use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::controller::Guarded;

/// Resources by the scope that they are watched in.
pub(crate) type Stores = Arc<[(Store<Guarded<Task>>, mpsc::Sender<ObjectRef<Guarded<Task>>>)]>;

/// Runs until `shutdown`.
pub(crate) async fn run(
    context: Context,
    stores: Stores,
    mirror: Arc<Mirror>,
    missed: mpsc::Sender<()>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut tasks = context.control.watch_tasks("namespaces/-", "", true);
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            answer = tasks.next() => answer,
        };
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Error::Ended("the stream of tasks")),
        };
        if answer.resync {
            tracing::info!("changes of tasks may have been missed; looking at all of them");
            mirror.clear();
            wake_all(&stores).await;
            // The sweep looks for tasks whose resource went meanwhile; one that is asked for already will do.
            let _ = missed.try_send(());
        }
        if let Some(task) = answer.task {
            hear(&context, &stores, &mirror, task).await;
        }
    }
}

async fn hear(context: &Context, stores: &Stores, mirror: &Mirror, record: v1::Task) {
    if record.labels.get(CLUSTER).map(String::as_str) != Some(&context.cluster) {
        return;
    }
    let Some((namespace, _)) = rota_proto::names::parse(&record.name, "tasks") else { return };
    let namespace = namespace.to_owned();
    let reference = ObjectRef::<Guarded<Task>>::new(&record.alias).within(&namespace);
    for (store, woken) in stores.iter() {
        // One whose resource is gone is for the sweep. To keep it here would be to keep it for ever.
        let ours = store.get(&reference).is_some_and(|task| task.uid().as_deref() == Some(&record.uid));
        if ours {
            mirror.put(record);
            let _ = woken.send(reference).await;
            return;
        }
    }
}

async fn wake_all(stores: &Stores) {
    for (store, woken) in stores.iter() {
        for task in store.state() {
            let _ = woken.send(ObjectRef::from_obj(task.as_ref())).await;
        }
    }
}
