//! The loop of one kind of resource: what changes is reconciled, one object never twice at once, each
//! with its own backoff. Knows no kind.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, applier};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::cluster;
use crate::context::Context;

/// Objects that are reconciled at a time. Most of the time goes into waiting for answers.
const CONCURRENCY: u16 = 64;
/// A watch is begun anew this often: load balancers cut those that are silent for longer.
const WATCH_TIMEOUT: u32 = 200;

/// A kind that is looked after.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// An object as it is watched: one that makes no sense must not stop the others.
pub(crate) type Guarded<K> = DeserializeGuard<K>;

/// How objects of one kind are looked after.
pub(crate) trait Reconciler<K: Kind>: Send + Sync + 'static {
    /// Makes true what the object says. What it returns says when to look again without being woken.
    fn reconcile(&self, object: &K) -> impl Future<Output = Result<Action, Failure>> + Send;

    /// The object is gone.
    fn deleted(&self, _object: &K) {}
}

/// Why an object could not be reconciled. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The cluster does not answer, or refuses.
    #[error("{0}")]
    Kube(#[from] kube::Error),
    /// The control plane does not answer, or refuses.
    #[error("{0}")]
    Control(#[from] rota_client::Error),
}

/// What the control plane refuses, with the fields concerned.
pub(crate) fn sentence(error: &rota_client::Error) -> String {
    let fields = error.fields.iter().map(|one| format!("{}: {}", one.field, one.message));
    std::iter::once(error.message.clone()).chain(fields).collect::<Vec<_>>().join("; ")
}

/// Where the objects come from, in which everybody may look.
pub(crate) struct Source<K: Kind> {
    pub store: Store<Guarded<K>>,
    writer: reflector::store::Writer<Guarded<K>>,
    api: Api<Guarded<K>>,
}

impl<K: Kind> Source<K> {
    pub(crate) fn new(api: Api<Guarded<K>>) -> Self {
        let (store, writer) = reflector::store();
        Self { store, writer, api }
    }
}

/// Runs until `shutdown`, then ends what is being reconciled and returns.
pub(crate) async fn run<K, R>(
    name: &'static str,
    source: Source<K>,
    reconciler: Arc<R>,
    woken: impl Stream<Item = ObjectRef<Guarded<K>>> + Send + 'static,
    context: Context,
    shutdown: CancellationToken,
) where
    K: Kind,
    R: Reconciler<K>,
{
    let Source { store, writer, api } = source;
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT);
    let told = (Arc::clone(&reconciler), context.clone());
    let changes = watcher(api, config).default_backoff().reflect(writer).filter_map(move |change| {
        future::ready(match change {
            Ok(Event::Apply(object) | Event::InitApply(object)) => Some(ObjectRef::from_obj(&object)),
            Ok(Event::Delete(object)) => {
                if let Ok(object) = &object.0 {
                    told.0.deleted(object);
                }
                None
            }
            Ok(Event::Init | Event::InitDone) => None,
            Err(error) => {
                told.1.health.failed(name, "watch");
                tracing::warn!(%error, "watching {name} failed; it is tried again");
                None
            }
        })
    });
    let queue = stream::select(changes, woken).map(Ok::<_, std::convert::Infallible>);
    let queue = Box::pin(queue.take_until(shutdown.cancelled_owned()));

    let backoff = Arc::new(Backoff::<ObjectRef<Guarded<K>>>::default());
    let reconcile = {
        let context = context.clone();
        move |object: Arc<Guarded<K>>, _| {
            Box::pin(one(name, object, Arc::clone(&reconciler), Arc::clone(&backoff), context.clone()))
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

async fn one<K: Kind, R: Reconciler<K>>(
    name: &'static str,
    object: Arc<Guarded<K>>,
    reconciler: Arc<R>,
    backoff: Arc<Backoff<ObjectRef<Guarded<K>>>>,
    context: Context,
) -> Result<Action, std::convert::Infallible> {
    let reference = ObjectRef::from_obj(object.as_ref());
    let object = match &object.0 {
        Ok(object) => object,
        Err(invalid) => {
            tracing::warn!(object = %reference, error = %invalid.error, "this object makes no sense");
            let note = format!("it cannot be read: {}", invalid.error);
            context.event(object.as_ref(), EventType::Warning, "Unreadable", "Read", &note).await;
            return Ok(Action::await_change());
        }
    };
    let timer = context.health.reconciling(name);
    let result = reconciler.reconcile(object).await;
    drop(timer);
    Ok(match result {
        Ok(action) => {
            backoff.forget(&reference);
            action
        }
        // It changed under our hands, and the change wakes us anyway.
        Err(Failure::Kube(kube::Error::Api(status))) if status.code == 409 => {
            Action::requeue(Duration::from_millis(100))
        }
        // Nothing can be made where everything goes; this object goes next.
        Err(Failure::Kube(kube::Error::Api(status))) if cluster::is_leaving(&status) => {
            Action::await_change()
        }
        Err(failure) => {
            let wait = backoff.failed(reference);
            context.health.failed(name, "reconcile");
            tracing::warn!(
                namespace = object.namespace().unwrap_or_default(),
                name = object.name_any(),
                %failure,
                "reconciling {name} failed; tried again in {wait:?}"
            );
            Action::requeue(wait)
        }
    })
}
