//! Failed compensations that a person resolves.

use rota_core::Timestamp;
use rota_core::text::prefix;
use rota_core::workflow::{Resolution, Resolved, StepCommand};
use rota_proto::v1;
use rota_store::Refused;
use tonic::Status;

use super::{MAX_REASON, Workflows};
use crate::trust::people::PersonCall;
use crate::wire::status::{invalid, refused};
use crate::wire::{check, workflow as wire};

/// Bytes of the name, or of the subject, of a person in a record.
pub(super) const MAX_NAME: usize = 256;

impl Workflows {
    pub(super) async fn resolve(
        &self,
        caller: Option<&PersonCall>,
        request: v1::ResolveCompensationRequest,
    ) -> Result<v1::StepStatus, Status> {
        check::length("note", &request.note, MAX_REASON)?;
        let resolution = match request.resolution() {
            v1::CompensationResolution::Retry => Resolution::Retry,
            v1::CompensationResolution::Done => Resolution::Done,
            v1::CompensationResolution::Skip => Resolution::Skip,
            v1::CompensationResolution::Unspecified => return Err(invalid("resolution", "is required")),
        };
        let failure =
            u32::try_from(request.failure).map_err(|_| invalid("failure", "must not be negative"))?;
        let found = self.find("name", &request.name).await?;
        let step = self.step_named(&found, &request.step).await?;
        let (by, by_subject) = match caller {
            Some(PersonCall { person, .. }) => (person.name.as_str(), person.subject.as_str()),
            // Tokens of other roles may not, and this one has no name.
            None => ("an admin", ""),
        };
        let [by, by_subject] = [by, by_subject].map(|text| prefix(text, MAX_NAME).to_owned());
        tracing::info!(
            workflow = %found.id,
            step = step.name,
            ?resolution,
            by,
            subject = caller.map(|caller| caller.person.subject.as_str()),
            note = request.note,
            "resolving a failed compensation"
        );
        // The time is that of the commit.
        let resolved =
            Resolved { failure, resolution, by, by_subject, note: request.note, at: Timestamp::default() };
        let step = self.step_command(&found, step.index, StepCommand::Resolve(resolved), None).await?;
        let step = step.map_err(|rejected| refused(Refused::Workflow(rejected)))?;
        Ok(wire::step(&found, &step))
    }
}
