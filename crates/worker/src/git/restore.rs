//! Brings what an earlier attempt has left into a clone: its commits, and what it had not committed.

use std::path::Path;

use rota_proto::v1::Changes;
use tokio::sync::watch;

use super::clone::{Base, base_reference};
use super::failure::Cause;
use super::run::{Git, GitError};
use super::snapshot::{self, COMMITTER};
use crate::runtimes::Stop;

/// Reference of what is restored.
const RESTORED: &str = "refs/rota/restored";

/// Makes a clone that nothing has changed yet what the snapshot of an earlier attempt has, and measures changes against what that
/// one started from. On errors, the clone is as it was.
pub(crate) async fn restore(
    git: &Git,
    base: &mut Base,
    bundle: &Path,
    changes: &Changes,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    let restored = try_restore(git, bundle, changes, stop).await;
    match &restored {
        Ok(()) => base.commit.clone_from(&changes.base_commit),
        Err(_) => drop(git.run(&["reset", "--quiet", "--hard", &base.commit], stop).await),
    }
    restored
}

async fn try_restore(
    git: &Git,
    bundle: &Path,
    changes: &Changes,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    let bundle = bundle.to_string_lossy();
    let rule = format!("+{}:{RESTORED}", snapshot::SNAPSHOT);
    let fetch = [
        "-c",
        "fetch.fsckObjects=true",
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--",
        &bundle,
        &rule,
    ];
    git.run(&fetch, stop).await?;
    let found = git.run(&["rev-parse", "--verify", &format!("{RESTORED}^{{commit}}")], stop).await?;
    if found != changes.commit {
        return Err(git.failed(Cause::Task, "the checkpoint has another commit".to_owned()));
    }
    git.run(&["reset", "--quiet", "--hard", &found], stop).await?;
    let by = git.run(&["log", "-1", "--format=%cn <%ce>", &found], stop).await?;
    if by == COMMITTER && found != changes.base_commit {
        // Made by the worker of what was not committed.
        git.run(&["reset", "--quiet", "--mixed", "HEAD^"], stop).await?;
    }
    git.run(&["update-ref", "-d", RESTORED], stop).await?;
    git.run(&["update-ref", &base_reference(&changes.branch), &changes.base_commit], stop).await.map(drop)
}
