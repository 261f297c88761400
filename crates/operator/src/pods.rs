//! Watch of worker pods: fills the pod stores and triggers the agents that the pods belong to.

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use rota_crds::resource::Agent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cluster::{AGENT, ROLE};
use crate::context::Context;
use crate::kind::Guarded;
use crate::terminating;

/// Watches the worker pods of one scope until `shutdown`.
pub(crate) async fn watch(
    context: Context,
    pods: Api<Pod>,
    writer: reflector::store::Writer<Pod>,
    triggers: Vec<mpsc::Sender<ObjectRef<Guarded<Agent>>>>,
    shutdown: CancellationToken,
) {
    let config =
        watcher::Config::default().labels(&format!("{ROLE}=worker,{}", context.options.class.selector()));
    let changes = watcher(pods, config).default_backoff().modify(|pod| pod.metadata.managed_fields = None);
    let mut changes = Box::pin(changes.reflect(writer).take_until(shutdown.cancelled_owned()));
    while let Some(change) = changes.next().await {
        let pod = match change {
            Ok(Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) => pod,
            Ok(Event::Init | Event::InitDone) => continue,
            Err(error) => {
                context.health.failed("pods", "watch");
                tracing::warn!(%error, kind = "pods", "watch failed, retrying");
                continue;
            }
        };
        if terminating::is_in_grace_period(&pod)
            && let Err(error) = terminating::release(&context.kube, &pod).await
        {
            context.health.failed("pods", "release");
            tracing::warn!(%error, pod = pod.name_any(), "failed to clean up pod in terminating namespace");
        }
        let Some(agent) = pod.labels().get(AGENT) else { continue };
        let reference = ObjectRef::<Guarded<Agent>>::new(agent).within(&pod.namespace().unwrap_or_default());
        for trigger in &triggers {
            let _ = trigger.send(reference.clone()).await;
        }
    }
}

/// Waits for the initial list of all pods. Returns false on shutdown.
pub(crate) async fn synced(pods: &[Store<Pod>], stop: &CancellationToken) -> bool {
    for store in pods {
        tokio::select! {
            () = stop.cancelled() => return false,
            ready = store.wait_until_ready() => if ready.is_err() { return false },
        }
    }
    true
}
