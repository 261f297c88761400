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

/// Makes a clone that nothing has changed yet what the snapshot of an earlier attempt has, on the clone's own branch, and measures
/// changes against what that one started from. On errors, the clone is as it was.
pub(crate) async fn restore(
    git: &Git,
    base: &mut Base,
    bundle: &Path,
    changes: &Changes,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    let restored = try_restore(git, base, bundle, changes, stop).await;
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
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    let bundle = Bundle { path: bundle.to_owned(), changes };
    let (objects, folder) = (git.directory.join(".git/objects"), bundle.path.with_extension("received"));
    bundle.unpack(git, &objects, &folder, RESTORED, stop).await?;
    let found = changes.commit.as_str();
    git.run(&["reset", "--quiet", "--hard", found], stop).await?;
    let by = git.run(&["log", "-1", "--format=%ce", found], stop).await?;
    if by == EMAIL && found != changes.base_commit {
        // Made by the worker of what was not committed.
        git.run(&["reset", "--quiet", "--mixed", "HEAD^"], stop).await?;
    }
    git.run(&["update-ref", "-d", RESTORED], stop).await?;
    git.run(&["update-ref", &base_reference(&base.branch), &changes.base_commit], stop).await.map(drop)
}
