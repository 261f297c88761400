//! Files of scripts: what they write into their workspace, and the conversation that later attempts and tasks continue. Repositories
//! and commands of `setup` may have put links there.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions};
use rota_proto::v1::{FailureClass, ScriptFile};

use crate::layout::SCRIPT;
use crate::program_dir;
use crate::report::failure;
use crate::runtimes::RunOutcome;
use crate::runtimes::context::is_below;

const CONVERSATION: &str = "conversation.txt";
/// Bytes of a conversation that are recalled.
const MAX_CONVERSATION: u64 = 1 << 20;

pub(super) struct Files<'a> {
    pub(super) workspace: &'a Path,
    pub(super) scratch: &'a Path,
}

impl Files<'_> {
    pub(super) async fn write(&self, file: &ScriptFile) -> Result<(), RunOutcome> {
        let path = PathBuf::from(&file.path);
        if !is_below(&path) {
            let text = format!("{path:?} is no path below the workspace");
            return Err(RunOutcome::Failed(failure(FailureClass::Invalid, text)));
        }
        let (options, text) = (OpenOptions::new().write(true).truncate(true).clone(), file.text.clone());
        write_in(self.workspace, path, options, text).await
    }

    pub(super) async fn remember(&self, line: &str) -> Result<(), RunOutcome> {
        let path = Path::new(SCRIPT).join(CONVERSATION);
        write_in(self.scratch, path, OpenOptions::new().append(true).clone(), format!("{line}\n")).await
    }

    /// Returns the conversation so far.
    pub(super) async fn conversation(&self) -> String {
        let scratch = self.scratch.to_owned();
        let read = move || {
            let path = Path::new(SCRIPT).join(CONVERSATION);
            let folder = program_dir::open(&scratch)?;
            let file = program_dir::open_file(&folder, &path, OpenOptions::new().read(true))?;
            let mut text = Vec::new();
            file.take(MAX_CONVERSATION).read_to_end(&mut text)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&text).into_owned())
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten().unwrap_or_default()
    }
}

/// Writes into a file of a folder, which is created if it does not exist.
async fn write_in(
    folder: &Path,
    path: PathBuf,
    options: OpenOptions,
    text: String,
) -> Result<(), RunOutcome> {
    let (root, name) = (folder.to_owned(), path.clone());
    let write = move || {
        let folder = program_dir::open(&root)?;
        create_parent(&folder, &path)?;
        let mut file = program_dir::open_file(&folder, &path, options.clone().create(true))?;
        file.write_all(text.as_bytes())
    };
    let written = tokio::task::spawn_blocking(write).await.map_err(io::Error::other).flatten();
    written.map_err(|error| {
        let class = match program_dir::is_of_machine(&error) {
            true => FailureClass::Environment,
            false => FailureClass::Invalid,
        };
        RunOutcome::Failed(failure(class, format!("failed to write {}: {error}", name.display())))
    })
}

fn create_parent(folder: &Dir, path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), |parent| folder.create_dir_all(parent))
}
