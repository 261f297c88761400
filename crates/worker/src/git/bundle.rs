//! Bundles of attempts, whose objects are checked before they come into a repository: an agent can make some by hand that do
//! harm where they are checked out.

use std::io;
use std::path::{Path, PathBuf};

use rota_proto::v1::Changes;
use tokio::sync::watch;

use super::failure::Cause;
use super::run::{Git, GitError};
use super::snapshot::SNAPSHOT;
use crate::runtimes::Stop;

/// Reference of what the repository of the bundle has already.
const BASE: &str = "refs/rota/base";

/// The bundle of a snapshot.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    pub(super) path: PathBuf,
    pub(super) changes: &'a Changes,
}

impl Bundle<'_> {
    /// Brings the snapshot into the repository of `git` as this reference. `objects` has the commit that its attempt started from;
    /// `folder` is where a repository is made meanwhile, in which nothing is.
    ///
    /// Git checks what it fetches from a repository, and up to version 2.45 not what it fetches from a bundle.
    pub(super) async fn unpack(
        &self,
        git: &Git,
        objects: &Path,
        folder: &Path,
        reference: &str,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), GitError> {
        tokio::fs::create_dir_all(folder).await.map_err(|error| machine(git, &error))?;
        let unchecked = git.within(folder);
        borrowing(&unchecked, objects, stop).await?;
        // Without the list of commits whose parents are missing, git looks for them.
        let shallow = objects.with_file_name("shallow");
        match tokio::fs::copy(shallow, folder.join("shallow")).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(machine(git, &error)),
            _ => {}
        }
        unchecked.run(&["update-ref", BASE, &self.changes.base_commit], stop).await?;
        let (path, rule) = (self.path.to_string_lossy(), format!("+{SNAPSHOT}:{SNAPSHOT}"));
        let args = ["fetch", "--quiet", "--no-tags", "--", &path, &rule];
        unchecked.run(&args, stop).await.map_err(by_agent)?;
        let (from, rule) = (folder.to_string_lossy(), format!("+{SNAPSHOT}:{reference}"));
        let checked =
            ["-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        let args: Vec<_> = checked.into_iter().chain(["--", &from, &rule]).collect();
        git.run(&args, stop).await.map_err(by_agent)?;
        crate::workspace::remove_all(folder.to_owned()).await;
        let found = git.run(&["rev-parse", "--verify", &format!("{reference}^{{commit}}")], stop).await?;
        if found != self.changes.commit {
            return Err(git.failed(Cause::Task, "the bundle has another commit".to_owned()));
        }
        Ok(())
    }
}

/// Makes the empty directory of `git` a bare repository that borrows objects.
pub(super) async fn borrowing(
    git: &Git,
    objects: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    git.run(&["init", "--quiet", "--bare", "--template="], stop).await?;
    let alternates = git.directory.join("objects/info/alternates");
    let line = format!("{}\n", objects.display());
    tokio::fs::write(alternates, line).await.map_err(|error| machine(git, &error))
}

/// No host has a part in these calls.
pub(super) fn by_agent(error: GitError) -> GitError {
    match error {
        GitError::Failed { cause: Cause::Host, failure } => GitError::Failed { cause: Cause::Task, failure },
        error => error,
    }
}

fn machine(git: &Git, error: &io::Error) -> GitError {
    git.failed(Cause::Machine, format!("failed to create a repository: {error}"))
}
