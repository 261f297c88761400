//! Bundles of attempts, whose objects are checked before they come into a repository: an agent can make some by hand that do
//! harm where they are checked out.

use std::io;
use std::path::{Path, PathBuf};

use rota_proto::v1::Changes;
use tokio::sync::watch;

use super::failure::Cause;
use super::run::{Git, GitError};
use super::snapshot::SNAPSHOT;
use crate::files::remove;
use crate::supervise::Stop;

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
    pub(super) async fn unpack(
        &self,
        git: &Git,
        objects: &Path,
        folder: &Path,
        reference: &str,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), GitError> {
        let unchecked = receiving(git, objects, folder, stop).await?;
        unchecked.run(&["update-ref", BASE, &self.changes.base_commit], stop).await?;
        let (received, taken) = (format!("+{SNAPSHOT}:{SNAPSHOT}"), format!("+{SNAPSHOT}:{reference}"));
        import_checked(git, &unchecked, &self.path, &[received], &[taken], stop).await?;
        let found = git.run(&["rev-parse", "--verify", &format!("{reference}^{{commit}}")], stop).await?;
        if found != self.changes.commit {
            return Err(git.failed(Cause::Task, "the bundle has another commit".to_owned()));
        }
        Ok(())
    }
}

/// Makes a repository for what is received, in a folder that is created. It has the objects of the one of `git`, or of its cache.
pub(super) async fn receiving(
    git: &Git,
    objects: &Path,
    folder: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Git, GitError> {
    tokio::fs::create_dir_all(folder).await.map_err(|error| machine(git, &error))?;
    let unchecked = git.within(folder);
    borrowing(&unchecked, objects, stop).await?;
    copy_shallow(objects, folder).await.map_err(|error| machine(git, &error))?;
    Ok(unchecked)
}

/// Copies the list of commits whose parents are missing, if there are any: without it, git looks for them.
async fn copy_shallow(objects: &Path, folder: &Path) -> io::Result<()> {
    match tokio::fs::copy(objects.with_file_name("shallow"), folder.join("shallow")).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Brings references of a bundle into the repository of `git`: by `received` into one that was made for it and is removed, and from
/// there, checked, by `taken`.
///
/// Git checks what it fetches from a repository, and up to version 2.45 not what it fetches from a bundle.
pub(super) async fn import_checked(
    git: &Git,
    unchecked: &Git,
    bundle: &Path,
    received: &[String],
    taken: &[String],
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    let (path, from) = (bundle.to_string_lossy(), unchecked.directory.to_string_lossy());
    let fetch = ["fetch", "--quiet", "--no-tags", "--", &*path];
    let args: Vec<_> = fetch.into_iter().chain(received.iter().map(String::as_str)).collect();
    unchecked.run(&args, stop).await.map_err(by_agent)?;
    let fetch = [
        "-c",
        "fetch.fsckObjects=true",
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--",
        &*from,
    ];
    let args: Vec<_> = fetch.into_iter().chain(taken.iter().map(String::as_str)).collect();
    git.run(&args, stop).await.map_err(by_agent)?;
    remove::all(unchecked.directory.clone()).await;
    Ok(())
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
fn by_agent(error: GitError) -> GitError {
    match error {
        GitError::Failed { cause: Cause::Host, failure } => GitError::Failed { cause: Cause::Task, failure },
        error => error,
    }
}

fn machine(git: &Git, error: &io::Error) -> GitError {
    git.failed(Cause::Machine, format!("failed to create a repository: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn only_absent_lists_of_shallow_commits_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let (objects, folder) = (root.path().join("clone/objects"), root.path().join("received"));
        fs::create_dir_all(&objects).unwrap();
        fs::create_dir_all(&folder).unwrap();
        copy_shallow(&objects, &folder).await.unwrap();
        assert!(!folder.join("shallow").exists());
        fs::write(objects.with_file_name("shallow"), "c0ffee\n").unwrap();
        copy_shallow(&objects, &folder).await.unwrap();
        assert_eq!(fs::read_to_string(folder.join("shallow")).unwrap(), "c0ffee\n");
        fs::remove_file(folder.join("shallow")).unwrap();
        fs::create_dir(folder.join("shallow")).unwrap();
        assert!(copy_shallow(&objects, &folder).await.is_err(), "it cannot be written");
    }
}
