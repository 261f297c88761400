//! Reconcile loop of one kind of resource: objects are reconciled concurrently, each at most once at a time and with
//! its own backoff. Knows no kind.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use kube::ResourceExt;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, applier};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::cluster;
use crate::context::Context;
use crate::error::ReconcileError;
use crate::kind::{Guarded, Kind};

/// Objects reconciled concurrently. Most of the time is spent waiting for responses.
const CONCURRENCY: u16 = 64;
/// Seconds after which a watch is renewed: load balancers cut connections that are silent for longer.
pub(crate) const WATCH_TIMEOUT_SECONDS: u32 = 200;
/// Delay before an object is reconciled again that changed during its reconciliation.
const CONFLICT_DELAY: Duration = Duration::from_millis(100);

/// Objects of one kind, one store for each watched scope, each with the channel that triggers a reconciliation.
pub(crate) type Stores<K> = Arc<[(Store<Guarded<K>>, mpsc::Sender<ObjectRef<Guarded<K>>>)]>;

/// Reconciler of one kind of object.
pub(crate) trait Reconciler<K: Kind>: Send + Sync + 'static {
    /// Brings the cluster and the control plane to the state that the object describes. Returns when to
    /// reconcile again without a trigger.
    fn reconcile(&self, object: &K) -> impl Future<Output = Result<Action, ReconcileError>> + Send;

    /// Called when the object was deleted, or moved to another class.
    fn deleted(&self, _object: &K) {}

    /// Called when a list is complete. One after a lost watch does not name what was deleted meanwhile.
    fn listed(&self) {}
}

/// Whether the first lists of some watches have arrived. By signals of their own: of several that wait for a store of kube-runtime,
/// only the last one is woken.
#[derive(Clone, Default)]
pub(crate) struct Synced(Vec<CancellationToken>);

impl Synced {
    /// Waits for all lists. Returns false on shutdown.
    pub(crate) async fn wait(&self, shutdown: &CancellationToken) -> bool {
        let all = future::join_all(self.0.iter().map(CancellationToken::cancelled));
        shutdown.run_until_cancelled(all).await.is_some()
    }
}

impl FromIterator<CancellationToken> for Synced {
    fn from_iter<I: IntoIterator<Item = CancellationToken>>(lists: I) -> Self {
        Self(lists.into_iter().collect())
    }
}

/// Watched objects of one kind, with a store that others may read.
pub(crate) struct Source<K: Kind> {
    pub store: Store<Guarded<K>>,
    /// Cancelled once the store has the first list.
    pub synced: CancellationToken,
    writer: reflector::store::Writer<Guarded<K>>,
    api: Api<Guarded<K>>,
}

impl<K: Kind> Source<K> {
    pub(crate) fn new(api: Api<Guarded<K>>) -> Self {
        let (store, writer) = reflector::store();
        Self { store, synced: CancellationToken::new(), writer, api }
    }
}

/// Reconciles objects as they change or are named by `triggers`. On shutdown, finishes the reconciliations under way
/// and returns.
pub(crate) async fn run<K, R>(
    name: &'static str,
    source: Source<K>,
    reconciler: Arc<R>,
    triggers: impl Stream<Item = ObjectRef<Guarded<K>>> + Send + 'static,
    context: Context,
    shutdown: CancellationToken,
) where
    K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    R: Reconciler<K>,
{
    let Source { store, synced, writer, api } = source;
    let class = context.options.class.selector();
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS).labels(&class);
    let observer = (Arc::clone(&reconciler), context.clone());
    let mut listed = Vec::new();
    let changes = watcher(api, config).default_backoff().reflect(writer).flat_map(move |change| {
        let mut changed = Vec::new();
        match change {
            Ok(Event::Apply(object)) => changed.push(ObjectRef::from_obj(&object)),
            Ok(Event::Delete(object)) => {
                if let Ok(object) = &object.0 {
                    observer.0.deleted(object);
                }
            }
            Ok(Event::Init) => listed.clear(),
            // The store has the object once the list is complete.
            Ok(Event::InitApply(object)) => listed.push(ObjectRef::from_obj(&object)),
            Ok(Event::InitDone) => {
                synced.cancel();
                observer.0.listed();
                changed = std::mem::take(&mut listed);
            }
            Err(error) => {
                observer.1.health.failed(name, "watch");
                tracing::warn!(%error, kind = name, "watch failed, retrying");
            }
        }
        stream::iter(changed)
    });
    let queue = stream::select(changes, triggers).map(Ok::<_, std::convert::Infallible>);
    let queue = Box::pin(queue.take_until(shutdown.cancelled_owned()));

    let backoff = Arc::new(Backoff::<ObjectRef<Guarded<K>>>::default());
    let reconcile = {
        let context = context.clone();
        move |object: Arc<Guarded<K>>, _| {
            let (reconciler, backoff) = (Arc::clone(&reconciler), Arc::clone(&backoff));
            Box::pin(reconcile_object(name, object, reconciler, backoff, context.clone()))
        }
    };
    let config = kube::runtime::controller::Config::default().concurrency(CONCURRENCY);
    applier(
        reconcile,
        |_, never: &std::convert::Infallible, _| match *never {},
        Arc::new(()),
        store,
        queue,
        config,
    )
    .for_each(|_| future::ready(()))
    .await;
}

async fn reconcile_object<K, R>(
    name: &'static str,
    object: Arc<Guarded<K>>,
    reconciler: Arc<R>,
    backoff: Arc<Backoff<ObjectRef<Guarded<K>>>>,
    context: Context,
) -> Result<Action, std::convert::Infallible>
where
    K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    R: Reconciler<K>,
{
    let reference = ObjectRef::from_obj(object.as_ref());
    let object = match &object.0 {
        Ok(object) => object,
        Err(invalid) => {
            tracing::warn!(object = %reference, error = %invalid.error, "failed to deserialize object");
            let note = format!("failed to deserialize the object: {}", invalid.error);
            if let Some(status) = invalid.status::<K>() {
                context.event(object.as_ref(), EventType::Warning, "InvalidObject", "Read", &note).await;
                if let Err(error) = context.write_status::<K>(name, &invalid.metadata, &status).await {
                    context.health.failed(name, "status");
                    tracing::warn!(object = %reference, %error, "failed to report an invalid object, retrying");
                    return Ok(Action::requeue(backoff.failed(reference)));
                }
            }
            return Ok(Action::await_change());
        }
    };
    let timer = context.health.reconciling(name);
    let result = reconciler.reconcile(object).await;
    drop(timer);
    Ok(match result {
        Ok(action) => {
            backoff.reset(&reference);
            action
        }
        // The object changed concurrently; the change also triggers a reconciliation.
        Err(ReconcileError::Kube(kube::Error::Api(status))) if status.code == 409 => {
            Action::requeue(CONFLICT_DELAY)
        }
        // Nothing can be created in a terminating namespace, and this object is deleted with it.
        Err(ReconcileError::Kube(kube::Error::Api(status))) if cluster::is_namespace_terminating(&status) => {
            Action::await_change()
        }
        Err(error) => {
            let delay = backoff.failed(reference);
            context.health.failed(name, "reconcile");
            tracing::warn!(
                kind = name,
                namespace = object.namespace().unwrap_or_default(),
                name = object.name_any(),
                %error,
                retry_delay = ?delay,
                "reconciliation failed, retrying"
            );
            Action::requeue(delay)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http::StatusCode;
    use parking_lot::Mutex;
    use rota_crds::resource::Task;
    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;
    use crate::context::tests::{api_server, context};

    #[derive(Default)]
    struct Listed(Notify);

    impl Reconciler<Task> for Listed {
        async fn reconcile(&self, _task: &Task) -> Result<Action, ReconcileError> {
            Ok(Action::await_change())
        }

        fn listed(&self) {
            self.0.notify_one();
        }
    }

    /// Sends the generations of what is reconciled.
    struct Reconciled(mpsc::UnboundedSender<Option<i64>>);

    impl Reconciler<Task> for Reconciled {
        async fn reconcile(&self, task: &Task) -> Result<Action, ReconcileError> {
            let _ = self.0.send(task.metadata.generation);
            Ok(Action::await_change())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_during_a_lost_watch_are_reconciled_once_the_list_is_complete() {
        let page = |generation, more: &str| {
            let task = json!({
                "apiVersion": "rota.dev/v1alpha1", "kind": "Task",
                "metadata": { "name": "a", "namespace": "team", "uid": "u", "generation": generation },
                "spec": { "agent": "coder" },
            });
            let metadata = json!({ "resourceVersion": "1", "continue": more });
            json!({ "kind": "TaskList", "metadata": metadata, "items": if generation > 0 { vec![task] } else { vec![] } })
        };
        let expired =
            json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "" });
        let expired = json!({ "type": "ERROR", "object": expired });
        // A list, a watch that is lost, and a list of two pages.
        let answers = [page(1, ""), expired, page(2, "more"), page(0, "")];
        let answers = Mutex::new(answers.into_iter());
        let last = Arc::new(Notify::new());
        let kube = api_server({
            let last = Arc::clone(&last);
            move |_, _, _| {
                let (answer, last) = (answers.lock().next(), Arc::clone(&last));
                async move {
                    let Some(answer) = answer else { return pending().await };
                    if answer["items"].as_array().is_some_and(Vec::is_empty) {
                        last.notified().await;
                    }
                    (StatusCode::OK, answer)
                }
            }
        });
        let (sender, mut reconciled) = mpsc::unbounded_channel();
        let source = Source::<Task>::new(Api::all(kube.clone()));
        let reconciler = Arc::new(Reconciled(sender));
        let run = run("task", source, reconciler, stream::pending(), context(kube), CancellationToken::new());
        let seen = async {
            assert_eq!(reconciled.recv().await, Some(Some(1)));
            tokio::time::timeout(Duration::from_secs(60), reconciled.recv()).await.unwrap_err();
            last.notify_one();
            tokio::time::timeout(Duration::from_secs(60), reconciled.recv()).await
        };
        tokio::select! {
            () = Box::pin(run) => panic!("the controller has ended"),
            seen = seen => assert_eq!(seen.expect("the change was not reconciled"), Some(Some(2))),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn complete_list_reaches_the_reconciler() {
        let list = json!({ "kind": "TaskList", "metadata": { "resourceVersion": "1" }, "items": [] });
        let list = Mutex::new(Some(list));
        let kube = api_server(move |_, _, _| {
            let list = list.lock().take();
            async move {
                match list {
                    Some(list) => (StatusCode::OK, list),
                    None => pending().await,
                }
            }
        });
        let (reconciler, stop) = (Arc::new(Listed::default()), CancellationToken::new());
        let source = Source::<Task>::new(Api::all(kube.clone()));
        let run = run("task", source, Arc::clone(&reconciler), stream::pending(), context(kube), stop);
        let listed = tokio::time::timeout(Duration::from_secs(60), reconciler.0.notified());
        tokio::select! {
            () = Box::pin(run) => panic!("the controller has ended"),
            listed = listed => listed.expect("no list"),
        }
    }
}
