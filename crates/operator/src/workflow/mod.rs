//! Reconciler of `Workflow` resources: each is submitted to the control plane once; its record is followed and written to the
//! status, whose size does not depend on the number of steps.

mod apply;
mod build;
mod follow;
mod status;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use rota_crds::DesiredState;
use rota_crds::resource::{Workflow, WorkflowPhase, WorkflowStatus};
use rota_proto::{names, v1};
use rota_telemetry::clock;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::apply::Submission;
use self::follow::Followers;
use crate::context::Context;
use crate::controller::{self, Reconciler, Synced};
use crate::error::ReconcileError;
use crate::kind::Guarded;
use crate::lifetime::{self, Expiry};
use crate::stored::TEMPLATE_CHECK_INTERVAL;

pub(crate) type Stores = controller::Stores<Workflow>;

/// Pending cancellations of workflows whose resource was deleted. The sweep finds those that do not fit.
const DELETION_QUEUE_SIZE: usize = 1024;
/// Interval at which workflows are reconciled without a trigger, in case one was lost.
const RESYNC_INTERVAL: Duration = Duration::from_secs(600);
/// Interval at which a workflow is read that has no stream, since there are too many of them.
const UNFOLLOWED_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest interval between two writes of a status, unless the workflow has ended.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Reconciler of `Workflow` resources. Follows the records of those that have not ended.
pub(crate) struct Workflows {
    context: Context,
    stores: Stores,
    followers: Followers,
    /// When the status of a workflow that has not ended was built last, by UID.
    written: Mutex<HashMap<String, Instant>>,
    deleted: mpsc::Sender<String>,
}

/// Reconciler of `Workflow` resources, with the background task that it needs.
pub(crate) struct Parts {
    pub workflows: Arc<Workflows>,
    deleted: mpsc::Receiver<String>,
}

impl Parts {
    pub(crate) fn new(context: Context, stores: Stores) -> Self {
        let (sender, deleted) = mpsc::channel(DELETION_QUEUE_SIZE);
        let followers = Followers::default();
        let written = Mutex::default();
        let workflows = Workflows { context, stores, followers, written, deleted: sender };
        Self { workflows: Arc::new(workflows), deleted }
    }

    /// Cancels workflows whose resource was deleted, until `shutdown`.
    pub(crate) async fn run(
        self,
        context: Context,
        stores: Stores,
        synced: Synced,
        shutdown: tokio_util::sync::CancellationToken,
    ) -> Result<(), crate::Error> {
        sweep::run(context, stores, synced, self.deleted, shutdown).await;
        Ok(())
    }
}

impl Reconciler<Workflow> for Workflows {
    async fn reconcile(&self, workflow: &Workflow) -> Result<Action, ReconcileError> {
        let reconciled = self.reconcile_workflow(workflow).await;
        if let Err(error) = &reconciled {
            self.report_failing(workflow, error).await;
        }
        reconciled
    }

    fn deleted(&self, workflow: &Workflow) {
        self.context.waiting_workflows.forget(workflow);
        self.forget(&workflow.uid().unwrap_or_default());
        // If the queue is full, the sweep finds it.
        let _ = self.deleted.try_send(record_name(workflow));
    }

    fn listed(&self) {
        let workflows = self.stores.iter().flat_map(|(store, _)| store.state());
        let uids: HashSet<_> = workflows.filter_map(|workflow| workflow.uid()).collect();
        self.followers.retain(&uids);
        self.written.lock().retain(|uid, _| uids.contains(uid));
        self.context.waiting_workflows.retain_known(&self.stores);
    }
}

/// Phase, reason and message of a workflow that has no record: pending if it may get one.
type Unrecorded = (WorkflowPhase, String, String);

impl Workflows {
    async fn reconcile_workflow(&self, workflow: &Workflow) -> Result<Action, ReconcileError> {
        let uid = workflow.uid().unwrap_or_default();
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        if workflow.metadata.deletion_timestamp.is_some() {
            self.forget(&uid);
            sweep::cancel(&self.context, record_name(workflow)).await?;
            return Ok(Action::await_change());
        }
        let written = workflow.status.clone().unwrap_or_default();
        if status::is_final(written.phase) {
            self.forget(&uid);
            return self.expire(workflow, now).await;
        }
        let record = match self.record(workflow).await? {
            Ok(record) => record,
            Err((WorkflowPhase::Pending, reason, message)) => {
                let waits = status::unsubmitted(workflow, &reason, &message);
                apply::write_status(&self.context, workflow, waits).await?;
                return Ok(Action::requeue(TEMPLATE_CHECK_INTERVAL));
            }
            Err((phase, reason, message)) => {
                self.forget(&uid);
                let ended = status::ended(workflow, phase, &reason, &message, now);
                apply::write_status(&self.context, workflow, ended).await?;
                return Ok(Action::await_change());
            }
        };
        // Deleted during the submission: the deletion found no record to cancel.
        if !self.exists(workflow) {
            sweep::cancel(&self.context, record_name(workflow)).await?;
            return Ok(Action::await_change());
        }
        let changed = match build::change(workflow, &record) {
            Some(change) => apply::change(&self.context, change).await?,
            None => None,
        };
        self.write_record(workflow, &changed.map_or(record, Arc::new), now).await
    }

    /// Writes why a workflow has not been submitted for a while.
    async fn report_failing(&self, workflow: &Workflow, error: &ReconcileError) {
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let is_submitted = workflow.status.as_ref().is_some_and(|status| status.workflow_id.is_some());
        if is_submitted || !lifetime::is_overdue(&workflow.metadata, now) {
            return;
        }
        let (reason, message) = error.condition();
        let built = status::unsubmitted(workflow, reason, &message);
        if let Err(error) = apply::write_status(&self.context, workflow, built).await {
            tracing::warn!(%error, workflow = workflow.name_any(), "failed to write the status of a failing workflow");
        }
    }

    /// Returns the record, which is created if there is none yet.
    async fn record(
        &self,
        workflow: &Workflow,
    ) -> Result<Result<Arc<v1::Workflow>, Unrecorded>, ReconcileError> {
        let uid = workflow.uid().unwrap_or_default();
        let is_accepted = workflow.status.as_ref().is_some_and(|status| status.workflow_id.is_some());
        if let Some(record) = self.followers.newest(&uid) {
            return Ok(Ok(record));
        }
        if is_accepted {
            return Ok(match apply::read(&self.context, record_name(workflow)).await? {
                Some(record) => Ok(Arc::new(record)),
                None => {
                    let loss = self.context.store.generation().loss();
                    let message = status::record_missing(loss);
                    Err((WorkflowPhase::OutcomeUnknown, "RecordNotFound".to_owned(), message))
                }
            });
        }
        let violations: Vec<_> = workflow.validate().iter().map(ToString::to_string).collect();
        if !violations.is_empty() {
            return Ok(Err((WorkflowPhase::Failed, "InvalidSpec".to_owned(), violations.join("; "))));
        }
        if workflow.spec.desired_state == Some(DesiredState::Cancelled) {
            // One that was submitted before is cancelled as all others.
            return Ok(match apply::read(&self.context, record_name(workflow)).await? {
                Some(record) => Ok(Arc::new(record)),
                None => {
                    let message = "cancelled before it began".to_owned();
                    Err((WorkflowPhase::Cancelled, "Cancelled".to_owned(), message))
                }
            });
        }
        let waiting = &self.context.waiting_workflows;
        if let Some(template) = &workflow.spec.template {
            waiting.wait(&self.stores, workflow, template);
        }
        let submission = apply::submit(&self.context, workflow).await?;
        if !matches!(submission, Submission::NoTemplate { .. }) {
            waiting.forget(workflow);
        }
        Ok(match submission {
            Submission::Accepted(record) => Ok(Arc::new(*record)),
            Submission::Rejected { reason, message } => Err((WorkflowPhase::Failed, reason, message)),
            Submission::NoTemplate { message } => {
                Err((WorkflowPhase::Pending, "TemplateNotFound".to_owned(), message))
            }
        })
    }

    async fn write_record(
        &self,
        workflow: &Workflow,
        record: &Arc<v1::Workflow>,
        now: Timestamp,
    ) -> Result<Action, ReconcileError> {
        let uid = workflow.uid().unwrap_or_default();
        let phase = status::phase(record);
        let is_final = status::is_final(phase);
        let mut is_followed = true;
        if !is_final {
            is_followed = self.follow(workflow);
            let since = self.written.lock().get(&uid).map(Instant::elapsed);
            let left = since.and_then(|since| WRITE_INTERVAL.checked_sub(since));
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                return Ok(Action::requeue(left));
            }
        }
        let waits_for = match phase {
            WorkflowPhase::Running => apply::waits_for(&self.context, record).await,
            _ => None,
        };
        let wait = waits_for.clone();
        let built = status::build(workflow, record, waits_for, now);
        if workflow.status.as_ref() != Some(&built) {
            let known = workflow.status.as_ref().and_then(|status| status.message.as_ref());
            if let Some(wait) = wait.filter(|wait| known != Some(&wait.message)) {
                let note = format!("{}: {}", wait.reason, wait.message);
                self.context.event(workflow, EventType::Normal, "Waiting", "Run", &note).await;
            }
            if is_final && phase != WorkflowPhase::Succeeded {
                let reason = built.reason.clone().unwrap_or_default();
                let note = format!("{reason}: {}", built.message.clone().unwrap_or_default());
                self.context.event(workflow, EventType::Warning, "Failed", "Run", &note).await;
            }
            apply::write_status(&self.context, workflow, built).await?;
        }
        match is_final {
            true => self.forget(&uid),
            false => drop(self.written.lock().insert(uid, Instant::now())),
        }
        Ok(Action::requeue(if is_followed { RESYNC_INTERVAL } else { UNFOLLOWED_INTERVAL }))
    }

    /// Follows the record from now on. Returns whether that is the case.
    fn follow(&self, workflow: &Workflow) -> bool {
        let reference = ObjectRef::<Guarded<Workflow>>::new(&workflow.name_any())
            .within(&workflow.namespace().unwrap_or_default());
        let known = self.stores.iter().find(|(store, _)| store.get(&reference).is_some());
        let Some((_, trigger)) = known else { return false };
        let uid = workflow.uid().unwrap_or_default();
        self.followers.follow(&self.context, uid, record_name(workflow), reference, trigger.clone())
    }

    /// Deletes a finished resource after its time to live. The record stays in the control plane.
    async fn expire(&self, workflow: &Workflow, now: Timestamp) -> Result<Action, ReconcileError> {
        let Some(status) = &workflow.status else { return Ok(Action::await_change()) };
        let (object, ttl) = (&workflow.metadata, workflow.spec.ttl_after_finished);
        match lifetime::expiry(object, ttl, status.completion_time, now) {
            Expiry::Never => {}
            Expiry::In(left) => return Ok(Action::requeue(left)),
            Expiry::Delete => apply::delete(&self.context, workflow).await?,
            Expiry::Retain(tool) => {
                let conditions = lifetime::retained(&status.conditions, object.generation, tool, now);
                let retained = WorkflowStatus { conditions, ..status.clone() };
                apply::write_status(&self.context, workflow, retained).await?;
            }
        }
        Ok(Action::await_change())
    }

    fn exists(&self, workflow: &Workflow) -> bool {
        let reference = ObjectRef::<Guarded<Workflow>>::new(&workflow.name_any())
            .within(&workflow.namespace().unwrap_or_default());
        let same = |known: Arc<Guarded<Workflow>>| known.uid() == workflow.uid();
        self.stores.iter().any(|(store, _)| store.get(&reference).is_some_and(same))
    }

    fn forget(&self, uid: &str) {
        self.followers.forget(uid);
        self.written.lock().remove(uid);
    }
}

/// Returns the name of the record, whose id is the UID of the resource.
fn record_name(workflow: &Workflow) -> String {
    names::workflow(&workflow.namespace().unwrap_or_default(), workflow.uid().unwrap_or_default())
}

#[cfg(test)]
mod tests;
