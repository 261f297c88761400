//! Files of scripts: what they write into their workspace, and the conversation that later attempts and tasks continue.

use std::path::Path;

use rota_proto::v1::{FailureClass, ScriptFile};
use tokio::fs;
use tokio::io::AsyncWriteExt;

use crate::runtimes::context::is_below;
use crate::runtimes::{RunOutcome, failure};

/// Folder of the conversation, below the scratch directory.
pub(super) const FOLDER: &str = "script";
pub(super) const CONVERSATION: &str = "conversation.txt";

pub(super) struct Files<'a> {
    pub(super) workspace: &'a Path,
    pub(super) conversation: &'a Path,
}

impl Files<'_> {
    pub(super) async fn write(&self, file: &ScriptFile) -> Result<(), RunOutcome> {
        if !is_below(Path::new(&file.path)) {
            let text = format!("{:?} is no path below the workspace", file.path);
            return Err(RunOutcome::Failed(failure(FailureClass::Invalid, text)));
        }
        let path = self.workspace.join(&file.path);
        create_parent(&path).await?;
        fs::write(&path, &file.text).await.map_err(|error| failed(&path, &error))
    }

    pub(super) async fn remember(&self, line: &str) -> Result<(), RunOutcome> {
        create_parent(self.conversation).await?;
        let append = async {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(self.conversation).await?;
            file.write_all(format!("{line}\n").as_bytes()).await?;
            file.flush().await
        };
        append.await.map_err(|error| failed(self.conversation, &error))
    }

    /// Returns the conversation so far.
    pub(super) async fn conversation(&self) -> String {
        fs::read_to_string(self.conversation).await.unwrap_or_default()
    }
}

async fn create_parent(path: &Path) -> Result<(), RunOutcome> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).await.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> RunOutcome {
    let text = format!("failed to write {}: {error}", path.display());
    RunOutcome::Failed(failure(FailureClass::Environment, text))
}
