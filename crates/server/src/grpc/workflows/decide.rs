//! Approvals that a person decides.

use rota_core::text::prefix;
use rota_core::workflow::StepCommand;
use rota_proto::v1;
use rota_store::Refused;
use tonic::Status;

use super::resolve::MAX_NAME;
use super::{MAX_COMMENT, Workflows};
use crate::trust::people::PersonCall;
use crate::wire::status::{invalid, refused};
use crate::wire::{check, workflow as wire};

impl Workflows {
    pub(super) async fn decide(
        &self,
        caller: Option<&PersonCall>,
        request: v1::DecideStepRequest,
    ) -> Result<v1::StepStatus, Status> {
        check::length("comment", &request.comment, MAX_COMMENT)?;
        let approves = match request.decision() {
            v1::StepDecision::Approve => true,
            v1::StepDecision::Reject => false,
            v1::StepDecision::Unspecified => return Err(invalid("decision", "is required")),
        };
        let found = self.find("name", &request.name).await?;
        let step = self.step_named(&found, &request.step).await?;
        // Only people have names. Issuers let them choose these, and give the subject.
        let by = caller.map(|caller| prefix(&caller.person.name, MAX_NAME));
        let subject = caller.map(|caller| caller.person.subject.as_str());
        let comment = request.comment.as_str();
        tracing::info!(workflow = %found.id, step = step.name, approves, by, subject, comment, "deciding a step");
        let mut output = serde_json::json!({ "approved": approves, "comment": comment });
        let mut message = if approves { "approved" } else { "rejected" }.to_owned();
        if let Some(by) = by {
            output["by"] = by.into();
            output["bySubject"] = subject.into();
            message = format!("{message} by {by}");
        }
        if !comment.is_empty() {
            message = format!("{message}: {comment}");
        }
        let command = StepCommand::Decide { approves, message };
        let output = output.to_string().into_bytes().into();
        let step = self.step_command(&found, step.index, command, Some(output)).await?;
        let step = step.map_err(|rejected| refused(Refused::Workflow(rejected)))?;
        Ok(wire::step(&found, &step))
    }
}
