//! Files that are inputs of new workflows: they are stored, and stay so until the workflow has them.

use bytes::Bytes;
use prost::Message;
use rota_artifacts::{Error, Pin};
use rota_core::Namespace;
use rota_proto::artifact_names::INPUT;
use rota_proto::v1;
use tonic::Status;

use super::Workflows;
use crate::artifacts;
use crate::wire::workflow::distinct;

impl Workflows {
    /// Checks the files that are inputs. Returns their encoded list, and what keeps their contents until the commit.
    pub(super) async fn files(
        &self,
        namespace: &Namespace,
        request: &v1::CreateWorkflowRequest,
    ) -> Result<Option<(Bytes, Pin)>, Status> {
        let spec = request.workflow.as_ref().and_then(|workflow| workflow.spec.as_ref());
        let Some(spec) = spec.filter(|spec| !spec.input_files.is_empty()) else { return Ok(None) };
        let files = distinct(spec.input_files.values());
        let mut list = v1::ArtifactList { artifacts: files, ..v1::ArtifactList::default() };
        artifacts::check("workflow.spec.input_files", &mut list, &[INPUT])?;
        let (missing, pin) = self.artifacts.missing(namespace, &artifacts::digests(&list.artifacts)).await?;
        match missing.first() {
            Some(part) => Err(artifacts::status(Error::NotFound(*part))),
            None => Ok(Some((list.encode_to_vec().into(), pin))),
        }
    }
}
