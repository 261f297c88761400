//! Reconciler of `WorkflowTemplate` resources: each is stored in the control plane, in which a change adds a version.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::Action;
use rota_client::Code;
use rota_core::text::prefix;
use rota_crds::resource::{WorkflowTemplate, WorkflowTemplateStatus, condition};
use rota_proto::{names, v1};
use rota_telemetry::clock;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::CLUSTER;
use crate::condition::Conditions;
use crate::context::Context;
use crate::controller::Reconciler;
use crate::error::{ReconcileError, camel_case, is_permanent, rejection_message};

const DELETION_QUEUE_SIZE: usize = 1024;
/// Interval at which templates are stored without a trigger: a restored control plane may not have them.
const RESYNC_INTERVAL: Duration = Duration::from_secs(600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(180);
/// Delay before a sweep after a deletion failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
const MAX_MESSAGE_BYTES: usize = 1024;

/// Reconciler of `WorkflowTemplate` resources. Keeps no state of its own.
pub(crate) struct Templates {
    context: Context,
    deleted: mpsc::Sender<()>,
}

/// Reconciler of `WorkflowTemplate` resources, with the background task that it needs.
pub(crate) struct Parts {
    pub templates: Arc<Templates>,
    deleted: mpsc::Receiver<()>,
}

impl Parts {
    pub(crate) fn new(context: Context) -> Self {
        let (sender, deleted) = mpsc::channel(DELETION_QUEUE_SIZE);
        Self { templates: Arc::new(Templates { context, deleted: sender }), deleted }
    }

    /// Deletes templates whose resource was deleted, until `shutdown`.
    pub(crate) async fn run(
        mut self,
        context: Context,
        shutdown: CancellationToken,
    ) -> Result<(), crate::Error> {
        let monitor = context
            .health
            .background_tasks
            .register("template-sweep", "Deletes templates whose resource was deleted");
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
                        context.health.failed("template", "sweep");
                        tracing::warn!(%error, "failed to delete templates whose resource was deleted, retrying");
                        RETRY_INTERVAL
                    }
                };
        }
    }
}

impl Reconciler<WorkflowTemplate> for Templates {
    async fn reconcile(&self, template: &WorkflowTemplate) -> Result<Action, ReconcileError> {
        if template.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let stored = match self.store(template).await {
            Ok(stored) => stored,
            Err(error) => {
                let (reason, message) = error.condition();
                // That it could not be stored matters only if no version is.
                if template.status.as_ref().is_none_or(|status| status.version.is_none()) {
                    self.write(template, Err((reason.to_owned(), message))).await?;
                }
                return Err(error);
            }
        };
        self.write(template, stored).await?;
        Ok(Action::requeue(RESYNC_INTERVAL))
    }

    fn deleted(&self, _template: &WorkflowTemplate) {
        // A pending request suffices: a sweep deletes all.
        let _ = self.deleted.try_send(());
    }
}

/// Version, or reason and message why there is none.
type Stored = Result<i64, (String, String)>;

impl Templates {
    async fn store(&self, template: &WorkflowTemplate) -> Result<Stored, ReconcileError> {
        let violations: Vec<_> = template.validate().iter().map(ToString::to_string).collect();
        if !violations.is_empty() {
            return Ok(Err(("InvalidSpec".to_owned(), violations.join("; "))));
        }
        let mut request = match template.to_request() {
            Ok(request) => request,
            Err(message) => return Ok(Err(("InvalidSpec".to_owned(), message))),
        };
        if let Some(record) = &mut request.workflow_template {
            record.labels.insert(CLUSTER.to_owned(), self.context.cluster.to_string());
        }
        match Box::pin(self.context.control.update_workflow_template(request)).await {
            Ok(stored) => Ok(Ok(stored.version)),
            Err(error) if is_permanent(&error) => {
                let message = rejection_message(&error);
                let reason = error.reason.unwrap_or_else(|| "Rejected".to_owned());
                Ok(Err((camel_case(&reason), message)))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&self, template: &WorkflowTemplate, stored: Stored) -> Result<(), ReconcileError> {
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let built = status(template, stored, now);
        if template.status.as_ref() == Some(&built) {
            return Ok(());
        }
        self.context.write_status::<WorkflowTemplate>("template", &template.metadata, &built).await.map(drop)
    }
}

fn status(template: &WorkflowTemplate, stored: Stored, now: Timestamp) -> WorkflowTemplateStatus {
    let before = template.status.clone().unwrap_or_default();
    let accepted = stored.is_ok();
    let (version, reason, message) = match stored {
        Ok(version) => (Some(version), "Accepted".to_owned(), None),
        Err((reason, message)) => {
            (before.version, reason, Some(prefix(&message, MAX_MESSAGE_BYTES).to_owned()))
        }
    };
    let all = Conditions {
        old: &before.conditions,
        generation: template.metadata.generation,
        reason,
        message: message.clone().unwrap_or_default(),
        now,
    };
    let mut conditions = Vec::new();
    all.put_always(&mut conditions, condition::ACCEPTED, accepted);
    WorkflowTemplateStatus { conditions, observed_generation: template.metadata.generation, message, version }
}

/// Deletes the templates of this cluster that have no resource. Workflows that were made from them continue.
async fn delete_orphans(context: &Context) -> Result<(), ReconcileError> {
    for record in context.control.all_workflow_templates("namespaces/-").await? {
        let Some((namespace, name)) = names::parse(&record.name, "templates") else { continue };
        let is_ours = record.labels.get(CLUSTER).is_some_and(|cluster| **cluster == *context.cluster);
        if !is_ours || !context.watches(namespace) {
            continue;
        }
        let templates: Api<WorkflowTemplate> = Api::namespaced(context.kube.clone(), namespace);
        let found = templates.get_metadata_opt(name).await?;
        if found.is_some_and(|one| context.options.class.contains(&one.metadata)) {
            continue;
        }
        tracing::info!(template = record.name, "deleting a template whose resource was deleted");
        let request = v1::DeleteWorkflowTemplateRequest { name: record.name.clone(), allow_missing: true };
        match context.control.delete_workflow_template(request).await {
            Ok(_) => {}
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_change_keeps_the_version() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let mut template = WorkflowTemplate::default();
        template.status = Some(status(&template, Ok(3), now));
        let refused = status(&template, Err(("InvalidArgument".into(), "x".repeat(5000))), now);
        assert_eq!(refused.version, Some(3));
        assert_eq!(refused.conditions[0].status, "False");
        assert_eq!(refused.message.map(|message| message.len()), Some(MAX_MESSAGE_BYTES));
    }
}
