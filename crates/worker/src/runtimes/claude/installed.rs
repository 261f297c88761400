//! The CLI that is installed on this machine: its version, which is asked for again only when its file has changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rota_proto::v1::{Failure, FailureClass};
use semver::Version;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::{DEFAULT_PROGRAM, probe, version};
use crate::report::failure;

/// The first version of the CLI that knows all options which [`argv`](super::argv) uses: `--system-prompt-snapshot` is the
/// newest. Found by searching the published builds.
const MIN_VERSION: Version = Version::new(2, 1, 257);

/// The worker's CLI, for agents that name no program of their own.
#[derive(Debug)]
pub(crate) struct Installed {
    program: PathBuf,
    known: Mutex<Option<(Identity, String)>>,
    /// Counts the programs that were found.
    changes: watch::Sender<usize>,
}

/// What changes when the file of a program is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    file: PathBuf,
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Identity {
    /// Returns that of a program; a package manager replaces the target of a link.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let file = path.canonicalize().ok()?;
        let metadata = file.metadata().ok()?;
        Some(Self { file, modified: metadata.modified().ok(), bytes: metadata.len() })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

impl Installed {
    /// Expects a path, or a name that is searched for on the worker's PATH.
    pub(crate) fn new(program: Option<PathBuf>) -> Self {
        let program = program.unwrap_or_else(|| DEFAULT_PROGRAM.into());
        Self { program, known: Mutex::default(), changes: watch::Sender::default() }
    }

    /// Returns what changes when another program is found where this one was.
    pub(crate) fn changes(&self) -> watch::Receiver<usize> {
        self.changes.subscribe()
    }

    /// Returns the version; empty if it cannot be found out, as for a missing program, which fails with a message of its
    /// own.
    pub(crate) async fn version(&self) -> String {
        match self.identity() {
            Some(identity) => self.version_of(&identity).await,
            None => String::new(),
        }
    }

    /// Returns the version as [`Installed::version`] does. Fails with class START if it is too old.
    pub(crate) async fn check(&self) -> Result<String, Failure> {
        let Some(identity) = self.identity() else { return Ok(String::new()) };
        let text = self.version_of(&identity).await;
        match Version::parse(&text) {
            Ok(found) if found < MIN_VERSION => Err(too_old(&identity.file, &found)),
            _ => Ok(text),
        }
    }

    async fn version_of(&self, identity: &Identity) -> String {
        let mut known = self.known.lock().await;
        match &*known {
            Some((same, text)) if same == identity => text.clone(),
            _ => {
                let text = version(&identity.file.to_string_lossy()).await.unwrap_or_default();
                *known = Some((identity.clone(), text.clone()));
                self.changes.send_modify(|changes| *changes += 1);
                text
            }
        }
    }

    fn identity(&self) -> Option<Identity> {
        let path = if self.program.components().count() > 1 {
            self.program.clone()
        } else {
            let search = rota_telemetry::env::var_os("PATH")?;
            std::env::split_paths(&search)
                .map(|entry| entry.join(&self.program))
                .find(|path| path.is_file())?
        };
        Identity::of(&path)
    }

    /// Returns which of the parts that the driver uses the CLI lacks, tried out once per version; none without a CLI.
    pub(crate) async fn missing(&self, state: &Path) -> Vec<String> {
        let Some(identity) = self.identity() else { return Vec::new() };
        match self.check().await {
            Ok(_) => probe::missing(&identity, state).await,
            Err(old) => vec![format!("what attempts need, and they fail to start: {}", old.message)],
        }
    }
}

fn too_old(file: &Path, found: &Version) -> Failure {
    let text =
        format!("Claude Code at {} has version {found}; {MIN_VERSION} or newer is needed", file.display());
    let mut failure = failure(FailureClass::Start, text);
    failure.hint = "update Claude Code on the worker's machine, for example with `claude update`".to_owned();
    failure
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(program: &Path, prints: &str) {
        std::fs::write(program, format!("#!/bin/sh\necho run >>\"$0.runs\"\n{prints}\n")).unwrap();
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn runs(program: &Path) -> usize {
        std::fs::read_to_string(program.with_extension("runs")).unwrap().lines().count()
    }

    #[tokio::test]
    async fn old_version_is_refused_until_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("claude");
        let installed = Installed::new(Some(program.clone()));
        assert_eq!(installed.check().await.unwrap(), "", "a missing program fails when it is started");

        write(&program, "echo '2.1.256 (Claude Code)'");
        for _ in 0..2 {
            let refused = installed.check().await.unwrap_err();
            assert_eq!(refused.class(), FailureClass::Start);
            assert!(refused.message.contains("has version 2.1.256; 2.1.257 or newer"), "{refused:?}");
        }
        assert_eq!(runs(&program), 1, "asked once");

        write(&program, "echo '2.1.257 (Claude Code), later'");
        assert_eq!(installed.check().await.unwrap(), "2.1.257");
        assert_eq!(runs(&program), 2);

        write(&program, "echo unknown");
        assert_eq!(installed.check().await.unwrap(), "unknown", "left to the program");
    }
}
