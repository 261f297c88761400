//! Brings what an earlier attempt has left into a clone: its commits, and what it had not committed.

use std::path::Path;

use rota_proto::v1::Changes;
use tokio::sync::watch;

use super::bundle::Bundle;
use super::clone::{Base, base_reference};
use super::run::{Git, GitError};
use super::snapshot::EMAIL;
use crate::runtimes::Stop;

/// Reference of what is restored.
const RESTORED: &str = "refs/rota/restored";

/// Why changes are not brought into a clone.
pub(crate) enum Unrestored {
    /// A file cannot be written; the reason for users.
    Write(String),
    Git(GitError),
}

/// Does [`restore`] with a bundle that programs of the attempt may not open: a copy of it is for git, within `scratch`.
pub(crate) async fn restore_from(
    git: &Git,
    base: &mut Base,
    bundle: &Path,
    scratch: &Path,
    changes: &Changes,
    as_commits: bool,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), Unrestored> {
    // Programs of the attempt may write there, as git does.
    let inner = scratch.join("restored");
    let _ = tokio::fs::create_dir_all(&inner).await;
    let path = inner.join("changes.bundle");
    let copied = tokio::fs::copy(bundle, &path).await;
    copied.map_err(|error| Unrestored::Write(format!("failed to write the changes to restore: {error}")))?;
    restore(git, base, &path, changes, as_commits, stop).await.map_err(Unrestored::Git)?;
    crate::workspace::remove_all(inner).await;
    Ok(())
}

/// Makes a clone that nothing has changed yet what the snapshot of an earlier attempt has, on the clone's own branch, and measures
/// changes against what that one started from. What was not committed is not, unless it should come `as_commits` as well. On errors,
/// the clone is as it was.
async fn restore(
    git: &Git,
    base: &mut Base,
    bundle: &Path,
    changes: &Changes,
    as_commits: bool,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    let restored = try_restore(git, base, bundle, changes, as_commits, stop).await;
    match &restored {
        Ok(()) => base.commit.clone_from(&changes.base_commit),
        Err(_) => {
            drop(git.run(&["reset", "--quiet", "--hard", &base.commit], stop).await);
            // New files are untracked once the last commit was undone.
            drop(git.run(&["clean", "--quiet", "-ffdx"], stop).await);
        }
    }
    restored
}

async fn try_restore(
    git: &Git,
    base: &Base,
    bundle: &Path,
    changes: &Changes,
    as_commits: bool,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    let bundle = Bundle { path: bundle.to_owned(), changes };
    let (objects, folder) = (git.directory.join(".git/objects"), bundle.path.with_extension("received"));
    bundle.unpack(git, &objects, &folder, RESTORED, stop).await?;
    let found = changes.commit.as_str();
    git.run(&["reset", "--quiet", "--hard", found], stop).await?;
    let by = git.run(&["log", "-1", "--format=%ce", found], stop).await?;
    if !as_commits && by == EMAIL && found != changes.base_commit {
        // Made by the worker of what was not committed.
        git.run(&["reset", "--quiet", "--mixed", "HEAD^"], stop).await?;
    }
    git.run(&["update-ref", "-d", RESTORED], stop).await?;
    git.run(&["update-ref", &base_reference(&base.branch), &changes.base_commit], stop).await.map(drop)
}
