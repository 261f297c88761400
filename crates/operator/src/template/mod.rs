//! `WorkflowTemplate` resources: each is stored in the control plane, in which a change adds a version.

mod waiting;

use jiff::Timestamp;
use kube::ResourceExt;
use rota_client::{Client, Code};
use rota_core::text::prefix;
use rota_crds::resource::{WorkflowTemplate, WorkflowTemplateStatus, condition};
use rota_proto::v1;

pub(crate) use self::waiting::Waiting;
use crate::cluster::CLUSTER;
use crate::condition::Conditions;
use crate::context::Context;
use crate::stored::{self, Listed, Outcome, StoredKind};

const MAX_MESSAGE_BYTES: usize = 1024;

impl StoredKind for WorkflowTemplate {
    type Request = v1::UpdateWorkflowTemplateRequest;
    type Record = v1::WorkflowTemplate;

    const NAME: &'static str = "template";
    const COLLECTION: &'static str = "templates";
    const SWEEP: (&'static str, &'static str) =
        ("template-sweep", "Deletes templates whose resource was deleted");

    fn request(&self, cluster: &str) -> Result<Self::Request, String> {
        stored::check(&self.validate())?;
        let mut request = self.to_request()?;
        if let Some(record) = &mut request.workflow_template {
            record.labels.insert(CLUSTER.to_owned(), cluster.to_owned());
        }
        Ok(request)
    }

    async fn store(
        control: &Client,
        request: Self::Request,
    ) -> Result<v1::WorkflowTemplate, rota_client::Error> {
        Box::pin(control.update_workflow_template(request)).await
    }

    async fn list(control: &Client) -> Result<Vec<Listed>, rota_client::Error> {
        let all = control.all_workflow_templates("namespaces/-").await?;
        Ok(all.into_iter().map(|record| (record.name, record.labels)).collect())
    }

    async fn delete(control: &Client, name: String) -> Result<(), rota_client::Error> {
        let request = v1::DeleteWorkflowTemplateRequest { name, allow_missing: true, ..Default::default() };
        match control.delete_workflow_template(request).await {
            Err(error) if error.code != Code::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn was_accepted(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.version.is_some())
    }

    fn build_status(
        &self,
        outcome: &Outcome<v1::WorkflowTemplate>,
        now: Timestamp,
    ) -> WorkflowTemplateStatus {
        let before = self.status.clone().unwrap_or_default();
        let (version, reason, message) = match outcome {
            Ok(record) => (Some(record.version), "Accepted", None),
            // The control plane keeps the version that it has accepted before.
            Err(refusal) => {
                let message = prefix(&refusal.message, MAX_MESSAGE_BYTES).to_owned();
                (before.version, refusal.reason.as_str(), Some(message))
            }
        };
        let all = Conditions {
            old: &before.conditions,
            generation: self.metadata.generation,
            reason: reason.to_owned(),
            message: message.clone().unwrap_or_default(),
            now,
        };
        let mut conditions = Vec::new();
        all.put_always(&mut conditions, condition::ACCEPTED, outcome.is_ok());
        WorkflowTemplateStatus { conditions, observed_generation: self.metadata.generation, message, version }
    }

    async fn stored(&self, context: &Context) {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        context.waiting_workflows.wake(&namespace, &name).await;
        context.waiting_schedules.wake(&namespace, &name).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Refusal;

    #[test]
    fn refused_change_keeps_the_version() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let mut template = WorkflowTemplate::default();
        let record = v1::WorkflowTemplate { version: 3, ..Default::default() };
        template.status = Some(template.build_status(&Ok(record), now));
        let (reason, message) = ("InvalidArgument".to_owned(), "x".repeat(5000));
        let refused = template.build_status(&Err(Refusal { reason, message, is_missing: false }), now);
        assert_eq!(refused.version, Some(3));
        assert_eq!(refused.conditions[0].status, "False");
        assert_eq!(refused.message.map(|message| message.len()), Some(MAX_MESSAGE_BYTES));
    }
}
