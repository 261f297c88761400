//! Newest checkpoint that the control plane has of an attempt: what the next list of its artifacts has, if nothing newer can be kept.

use prost::Message as _;
use rota_proto::v1::{Artifact, ArtifactList, Changes, Checkpoint};

/// Newest checkpoint of an attempt that the control plane has kept.
#[derive(Debug, Clone)]
pub(crate) struct LastCheckpoint {
    pub(crate) checkpoint: Checkpoint,
    /// Artifacts with the files below `checkpoint/`.
    pub(crate) artifacts: Vec<Artifact>,
    /// Digest of the copies, and the commit of the snapshot.
    pub(crate) state: (u64, String),
}

impl LastCheckpoint {
    pub(crate) fn digest(&self) -> u64 {
        self.state.0
    }

    /// Returns the bytes that its files take in a list.
    pub(crate) fn list_bytes(&self) -> usize {
        ArtifactList { artifacts: self.artifacts.clone(), ..ArtifactList::default() }.encoded_len()
    }

    pub(crate) fn into_list(self) -> ArtifactList {
        let changes = Changes { commit: self.state.1, ..Changes::default() };
        let (artifacts, checkpoint) = (self.artifacts, Some(self.checkpoint));
        ArtifactList { artifacts, checkpoint, changes: Some(changes), ..ArtifactList::default() }
    }

    pub(crate) fn of_list(list: ArtifactList, digest: u64) -> Option<Self> {
        let commit = list.changes.unwrap_or_default().commit;
        Some(Self { checkpoint: list.checkpoint?, artifacts: list.artifacts, state: (digest, commit) })
    }
}
