//! Reconciler of `Schedule` resources: each is stored in the control plane, which creates the tasks and workflows of its runs.
//! Nothing of a run is a resource: the status has the last one and the next time.

mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::Action;
use rota_client::Code;
use rota_crds::resource::Schedule;
use rota_proto::{names, v1};
use rota_telemetry::clock;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::status::Stored;
use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::controller::Reconciler;
use crate::error::{ReconcileError, camel_case, is_permanent, rejection_message};

const DELETION_QUEUE_SIZE: usize = 1024;
const SWEEP_INTERVAL: Duration = Duration::from_secs(180);
/// Delay before a sweep after a deletion failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Interval at which a template that a schedule waits for is looked for.
const TEMPLATE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Reconciler of `Schedule` resources. Keeps no state of its own.
pub(crate) struct Schedules {
    context: Context,
    deleted: mpsc::Sender<()>,
}

/// Reconciler of `Schedule` resources, with the background task that it needs.
pub(crate) struct Parts {
    pub schedules: Arc<Schedules>,
    deleted: mpsc::Receiver<()>,
}

impl Parts {
    pub(crate) fn new(context: Context) -> Self {
        let (sender, deleted) = mpsc::channel(DELETION_QUEUE_SIZE);
        Self { schedules: Arc::new(Schedules { context, deleted: sender }), deleted }
    }

    /// Deletes schedules whose resource was deleted, until `shutdown`.
    pub(crate) async fn run(
        mut self,
        context: Context,
        shutdown: CancellationToken,
    ) -> Result<(), crate::Error> {
        let monitor = context
            .health
            .background_tasks
            .register("schedule-sweep", "Deletes schedules whose resource was deleted");
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(()) = self.deleted.recv() => {}
                () = tokio::time::sleep_until(next) => {}
            }
            let activation = monitor.activate();
            next = Instant::now()
                + match delete_orphans(&context).await {
                    Ok(()) => {
                        activation.succeeded();
                        SWEEP_INTERVAL
                    }
                    Err(error) => {
                        activation.failed(&error);
                        context.health.failed("schedule", "sweep");
                        tracing::warn!(%error, "failed to delete schedules whose resource was deleted, retrying");
                        RETRY_INTERVAL
                    }
                };
        }
    }
}

impl Reconciler<Schedule> for Schedules {
    async fn reconcile(&self, schedule: &Schedule) -> Result<Action, ReconcileError> {
        if schedule.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let stored = match self.store(schedule).await {
            Ok(stored) => stored,
            Err(error) => {
                let (reason, message) = error.condition();
                // One that was accepted runs at its times, whatever keeps the operator from looking at it.
                if !status::was_accepted(schedule) {
                    self.write(schedule, &Err((reason.to_owned(), message)), now).await?;
                }
                return Err(error);
            }
        };
        self.write(schedule, &stored, now).await?;
        Ok(match &stored {
            Ok(record) => Action::requeue(status::next_look(record, now)),
            Err((reason, _)) if reason == TEMPLATE_NOT_FOUND => Action::requeue(TEMPLATE_CHECK_INTERVAL),
            Err(_) => Action::requeue(status::RESYNC_INTERVAL),
        })
    }

    fn deleted(&self, _schedule: &Schedule) {
        // A pending request suffices: a sweep deletes all.
        let _ = self.deleted.try_send(());
    }
}

/// Reason while the template of a schedule does not exist, which may be applied after it.
const TEMPLATE_NOT_FOUND: &str = "TemplateNotFound";

impl Schedules {
    async fn store(&self, schedule: &Schedule) -> Result<Stored, ReconcileError> {
        let invalid = |message: String| Ok(Err(("InvalidSpec".to_owned(), message)));
        let violations: Vec<_> = schedule.validate().iter().map(ToString::to_string).collect();
        if !violations.is_empty() {
            return invalid(violations.join("; "));
        }
        let mut request = match schedule.to_request() {
            Ok(request) => request,
            Err(message) => return invalid(message),
        };
        if let Some(record) = &mut request.schedule {
            record.labels.insert(CLUSTER.to_owned(), self.context.cluster.to_string());
        }
        match Box::pin(self.context.control.update_schedule(request)).await {
            Ok(record) => Ok(Ok(Box::new(record))),
            Err(error) if error.code == Code::NotFound || is_permanent(&error) => {
                let message = rejection_message(&error);
                let reason = error.reason.unwrap_or_else(|| "Rejected".to_owned());
                Ok(Err((camel_case(&reason), message)))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn write(
        &self,
        schedule: &Schedule,
        stored: &Stored,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let built = status::status(schedule, stored, now);
        if schedule.status.as_ref() == Some(&built) {
            return Ok(());
        }
        self.context.write_status::<Schedule>("schedule", &schedule.metadata, &built).await.map(drop)
    }
}

/// Deletes the schedules of this cluster that have no resource. What they have started continues.
async fn delete_orphans(context: &Context) -> Result<(), ReconcileError> {
    for record in context.control.all_schedules("namespaces/-").await? {
        let Some((namespace, name)) = names::parse(&record.name, "schedules") else { continue };
        let is_ours = record.labels.get(CLUSTER).is_some_and(|cluster| **cluster == *context.cluster);
        if !is_ours || !context.watches(namespace) {
            continue;
        }
        let schedules: Api<Schedule> = Api::namespaced(context.kube.clone(), namespace);
        let found = schedules.get_metadata_opt(name).await?;
        if found.is_some_and(|one| context.options.class.contains(&one.metadata)) {
            continue;
        }
        tracing::info!(schedule = record.name, "deleting a schedule whose resource was deleted");
        let request = v1::DeleteScheduleRequest { name: record.name.clone(), allow_missing: true };
        match context.control.delete_schedule(request).await {
            Ok(_) => {}
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
