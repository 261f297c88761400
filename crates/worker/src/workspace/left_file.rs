//! Description of what an attempt has left, in a file of its directory. Has no secrets, so that what is stored later pushes nothing: later
//! attempts deliver.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::syncfs;
use prost::Message;
use rota_proto::v1::{ArtifactList, Changes};
use rota_proto::worker::v1::Result as AttemptResult;

use super::last_checkpoint::LastCheckpoint;
use crate::layout::Own;

/// Bytes of the file: a result and lists of artifacts, each of which has bounds.
const MAX_BYTES: u64 = 16 << 20;

/// Description of what an attempt has left. Later versions read it: a field keeps its number and its meaning.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Left {
    /// How the attempt ends once all is stored.
    #[prost(message, required, tag = "1")]
    pub(crate) result: AttemptResult,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) globs: Vec<String>,
    #[prost(bool, tag = "4")]
    pub(crate) unusable: bool,
    #[prost(message, optional, tag = "5")]
    pub(crate) changes: Option<Changes>,
    /// Conversation and digest of the copies for a later attempt.
    #[prost(string, optional, tag = "6")]
    pub(crate) conversation: Option<String>,
    #[prost(fixed64, tag = "7")]
    pub(crate) digest: u64,
    /// The newest checkpoint that is stored, with the artifacts that are its files.
    #[prost(message, optional, tag = "8")]
    pub(crate) stored: Option<ArtifactList>,
    #[prost(fixed64, tag = "9")]
    pub(crate) stored_digest: u64,
    #[prost(bool, tag = "10")]
    pub(crate) has_list: bool,
    #[prost(string, tag = "11")]
    pub(crate) workspace: String,
    /// What becomes of the workspace, as `WorkspaceCleanup`.
    #[prost(int32, tag = "12")]
    pub(crate) cleanup: i32,
    /// Whether the changes are to be delivered.
    #[prost(bool, tag = "13")]
    pub(crate) delivers: bool,
    /// Whether other attempts may work in the workspace meanwhile.
    #[prost(bool, tag = "14")]
    pub(crate) shared: bool,
}

impl Left {
    /// Writes the file once what it describes is durable: all or nothing, also if the machine fails. Blocks.
    pub(crate) fn write(&self, own: &Path) -> io::Result<()> {
        for folder in [own, Path::new(&self.workspace)] {
            match File::options().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(folder) {
                // Programs of the attempt may have removed their workspace.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                opened => syncfs(opened?)?,
            }
        }
        self.write_alone(own)
    }

    /// Writes the file, which describes no others. Blocks.
    pub(super) fn write_alone(&self, own: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(own)?;
        file.write_all(&self.encode_to_vec())?;
        file.as_file().sync_all()?;
        file.persist(Own(own).left())?;
        File::open(own)?.sync_all()
    }

    /// Reads the file in the directory of an attempt, if there is one. Blocks.
    pub(crate) fn read(own: &Path) -> Option<Self> {
        let path = Own(own).left();
        let found =
            path.symlink_metadata().ok().filter(|found| found.is_file() && found.len() <= MAX_BYTES)?;
        let read = std::fs::read(&path).and_then(|bytes| Ok(Self::decode(bytes.as_slice())?));
        let bytes = found.len();
        read.inspect_err(|error| tracing::warn!(path = %path.display(), %error, bytes, "failed to read what an attempt left")).ok()
    }

    /// Returns the newest checkpoint that is stored.
    pub(crate) fn last_checkpoint(&self) -> Option<LastCheckpoint> {
        LastCheckpoint::of_list(self.stored.clone()?, self.stored_digest)
    }
}

/// Whether the directory of an attempt has what it left. Blocks.
pub(crate) fn is_left(own: &Path) -> bool {
    Own(own).left().is_file()
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{Artifact, WorkspaceCleanup};

    use super::*;

    /// A file that an earlier version has written: later ones store what it describes, or work would be lost.
    const RECORDED: &[u8] = b"\x0a\x08\x0a\x04task\x10\x03\x12\x07default\x1a\x07dist/**\x20\x01\x2a\x06\x12\x04c0de\x32\x04talk\
        \x39\x01\x00\x00\x00\x00\x00\x00\x80\x42\x0e\x0a\x0c\x0a\x0acheckpoint\x49\x02\x00\x00\x00\x00\x00\x00\x00\x50\x01\x5a\x05/work\x60\x02\
        \x68\x01\x70\x01";

    #[test]
    fn files_of_earlier_versions_are_read() {
        let own = tempfile::tempdir().unwrap();
        std::fs::write(Own(own.path()).left(), RECORDED).unwrap();
        let artifact = Artifact { name: "checkpoint".to_owned(), ..Artifact::default() };
        let expected = Left {
            result: AttemptResult { task_id: "task".to_owned(), fence: 3, ..AttemptResult::default() },
            namespace: "default".to_owned(),
            globs: vec!["dist/**".to_owned()],
            unusable: true,
            changes: Some(Changes { commit: "c0de".to_owned(), ..Changes::default() }),
            conversation: Some("talk".to_owned()),
            digest: 0x8000_0000_0000_0001,
            stored: Some(ArtifactList { artifacts: vec![artifact], ..ArtifactList::default() }),
            stored_digest: 2,
            has_list: true,
            workspace: "/work".to_owned(),
            cleanup: WorkspaceCleanup::OnSuccess.into(),
            delivers: true,
            shared: true,
        };
        assert_eq!(Left::read(own.path()), Some(expected));
    }
}
