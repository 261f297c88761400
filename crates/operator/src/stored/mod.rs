//! Reconciler of the kinds of which the control plane keeps a record of the same name: schedules and templates. Stores each object,
//! writes its status, and deletes the records whose resource was deleted. Knows no kind.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Resource;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::core::object::HasStatus;
use kube::runtime::controller::Action;
use rota_client::{Client, Code};
use rota_crds::Violation;
use rota_proto::names;
use rota_telemetry::clock;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::controller::{Reconciler, Stores};
use crate::error::{ReconcileError, camel_case, is_permanent, rejection_message};
use crate::kind::Kind;
use crate::template::Waiting;

/// Interval at which objects are stored without a trigger: a restored control plane may not have them.
pub(crate) const RESYNC_INTERVAL: Duration = Duration::from_secs(600);
/// Interval at which what refers to a missing template is stored again: no resource announces a template that was stored over the API.
pub(crate) const TEMPLATE_CHECK_INTERVAL: Duration = Duration::from_secs(60);
const DELETION_QUEUE_SIZE: usize = 1024;
const SWEEP_INTERVAL: Duration = Duration::from_secs(180);
/// Delay before a sweep after a deletion failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// Kind of which the control plane keeps a record of the same name.
pub(crate) trait StoredKind:
    Kind + Resource<Scope = NamespaceResourceScope> + HasStatus<Status: Serialize + PartialEq + Send + Sync>
{
    /// Request that creates or updates the record.
    type Request: Send;
    type Record: Send + Sync;

    /// Name in logs and metrics.
    const NAME: &'static str;
    /// Collection of the records in their names.
    const COLLECTION: &'static str;
    /// Name and purpose of the background task that deletes records.
    const SWEEP: (&'static str, &'static str);

    /// Builds the request that stores the object as one of a cluster. Returns an error for an invalid object.
    fn request(&self, cluster: &str) -> Result<Self::Request, String>;

    fn store(
        control: &Client,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Record, rota_client::Error>> + Send;

    /// Returns the names and labels of all records.
    fn list(control: &Client) -> impl Future<Output = Result<Vec<Listed>, rota_client::Error>> + Send;

    /// Deletes a record. A missing one is no error.
    fn delete(control: &Client, name: String) -> impl Future<Output = Result<(), rota_client::Error>> + Send;

    /// Returns whether the control plane has accepted the object before, by its status.
    fn was_accepted(&self) -> bool;

    fn build_status(&self, outcome: &Outcome<Self::Record>, now: Timestamp) -> Self::Status;

    /// Returns the time until the record has something new for the status.
    fn next_look(_record: &Self::Record, _now: Timestamp) -> Duration {
        RESYNC_INTERVAL
    }

    /// Returns the template that the object refers to.
    fn template(&self) -> Option<&str> {
        None
    }

    /// Returns the objects of this kind that wait for templates, if there can be any.
    fn waiting(_context: &Context) -> Option<&Waiting<Self>> {
        None
    }

    /// Called after the object was stored.
    fn stored(&self, _context: &Context) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Name and labels of a record.
pub(crate) type Listed = (String, BTreeMap<String, String>);

/// Record of the control plane, or why it has refused the object.
pub(crate) type Outcome<R> = Result<R, Refusal>;

/// Why the control plane has not stored an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub reason: String,
    pub message: String,
    /// Whether it refers to something that does not exist, and that may be stored after it.
    pub is_missing: bool,
}

impl Refusal {
    fn invalid(message: String) -> Self {
        Self { reason: "InvalidSpec".to_owned(), message, is_missing: false }
    }
}

/// Returns the violations as one error.
pub(crate) fn check(violations: &[Violation]) -> Result<(), String> {
    if violations.is_empty() {
        return Ok(());
    }
    Err(violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Reconciler of the objects of one kind. Keeps no state of its own.
pub(crate) struct StoredObjects<K: StoredKind> {
    context: Context,
    stores: Stores<K>,
    deleted: mpsc::Sender<()>,
}

/// Reconciler of the objects of one kind, with the background task that it needs.
pub(crate) struct Parts<K: StoredKind> {
    pub objects: Arc<StoredObjects<K>>,
    deleted: mpsc::Receiver<()>,
}

impl<K: StoredKind> Parts<K> {
    pub(crate) fn new(context: Context, stores: Stores<K>) -> Self {
        let (sender, deleted) = mpsc::channel(DELETION_QUEUE_SIZE);
        Self { objects: Arc::new(StoredObjects { context, stores, deleted: sender }), deleted }
    }

    /// Deletes records whose resource was deleted, until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), crate::Error> {
        let context = &self.objects.context;
        let (name, purpose) = K::SWEEP;
        let monitor = context.health.background_tasks.register(name, purpose);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(()) = self.deleted.recv() => {}
                () = tokio::time::sleep_until(next) => {}
            }
            let activation = monitor.activate();
            next = Instant::now()
                + match self.objects.delete_orphans().await {
                    Ok(()) => {
                        activation.succeeded();
                        SWEEP_INTERVAL
                    }
                    Err(error) => {
                        activation.failed(&error);
                        context.health.failed(K::NAME, "sweep");
                        tracing::warn!(%error, kind = K::NAME, "failed to delete records whose resource was deleted, retrying");
                        RETRY_INTERVAL
                    }
                };
        }
    }
}

impl<K: StoredKind> Reconciler<K> for StoredObjects<K> {
    async fn reconcile(&self, object: &K) -> Result<Action, ReconcileError> {
        if object.meta().deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let outcome = match self.store(object).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // What was accepted holds, whatever keeps the operator from looking at it.
                if !object.was_accepted() {
                    let (reason, message) = error.condition();
                    let refusal = Refusal { reason: reason.to_owned(), message, is_missing: false };
                    self.write(object, &Err(refusal), now).await?;
                }
                return Err(error);
            }
        };
        self.write(object, &outcome, now).await?;
        Ok(Action::requeue(match &outcome {
            Ok(record) => {
                object.stored(&self.context).await;
                K::next_look(record, now)
            }
            Err(refusal) if refusal.is_missing => TEMPLATE_CHECK_INTERVAL,
            Err(_) => RESYNC_INTERVAL,
        }))
    }

    fn deleted(&self, object: &K) {
        if let Some(waiting) = K::waiting(&self.context) {
            waiting.forget(object);
        }
        // A pending request suffices: a sweep deletes all.
        let _ = self.deleted.try_send(());
    }
}

impl<K: StoredKind> StoredObjects<K> {
    async fn store(&self, object: &K) -> Result<Outcome<K::Record>, ReconcileError> {
        let request = match object.request(&self.context.cluster) {
            Ok(request) => request,
            Err(message) => return Ok(Err(Refusal::invalid(message))),
        };
        let waiting = K::waiting(&self.context);
        if let (Some(waiting), Some(template)) = (waiting, object.template()) {
            waiting.wait(&self.stores, object, template);
        }
        let outcome = match K::store(&self.context.control, request).await {
            Ok(record) => Ok(record),
            Err(error) if error.code == Code::NotFound || is_permanent(&error) => {
                let (message, is_missing) = (rejection_message(&error), error.code == Code::NotFound);
                let reason = camel_case(&error.reason.unwrap_or_else(|| "Rejected".to_owned()));
                Err(Refusal { reason, message, is_missing })
            }
            Err(error) => return Err(error.into()),
        };
        if let (Some(waiting), false) = (waiting, outcome.as_ref().is_err_and(|refusal| refusal.is_missing)) {
            waiting.forget(object);
        }
        Ok(outcome)
    }

    async fn write(
        &self,
        object: &K,
        outcome: &Outcome<K::Record>,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let built = object.build_status(outcome, now);
        if object.status() == Some(&built) {
            return Ok(());
        }
        self.context.write_status::<K>(K::NAME, object.meta(), &built).await.map(drop)
    }

    /// Deletes the records of this cluster that have no resource. What was made from them continues.
    async fn delete_orphans(&self) -> Result<(), ReconcileError> {
        let Context { kube, control, cluster, options, .. } = &self.context;
        for (record, labels) in K::list(control).await? {
            let Some((namespace, name)) = names::parse(&record, K::COLLECTION) else { continue };
            let is_ours = labels.get(CLUSTER).is_some_and(|label| **label == **cluster);
            if !is_ours || !self.context.watches(namespace) {
                continue;
            }
            let objects: Api<K> = Api::namespaced(kube.clone(), namespace);
            let found = objects.get_metadata_opt(name).await?;
            if found.is_some_and(|one| options.class.contains(&one.metadata)) {
                continue;
            }
            tracing::info!(kind = K::NAME, record, "deleting a record whose resource was deleted");
            K::delete(control, record).await?;
        }
        Ok(())
    }
}
