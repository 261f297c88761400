//! Brings what an earlier attempt has left into a clone: its commits, and what it had not committed.

use std::path::{Path, PathBuf};

use rota_proto::v1::Changes;
use tokio::sync::watch;

use super::bundle::{Bundle, import_checked, receiving};
use super::clone::{Base, base_reference};
use super::run::{Git, GitError};
use super::snapshot::{EMAIL, message};
use crate::files::remove;
use crate::layout::Scratch;
use crate::supervise::Stop;

/// References of other branches, and of what was stashed, until they are restored. They are fetched, never listed: there may be many.
const ELSEWHERE: &str = "refs/rota/elsewhere/";
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
    let path = for_git(bundle, scratch).await?;
    let restored = restore(git, base, &path, changes, as_commits, stop).await;
    remove::all(Scratch(scratch).restored()).await;
    restored.map_err(Unrestored::Git)
}

/// Copies a bundle to where git may work with it, as programs of the attempt may.
async fn for_git(bundle: &Path, scratch: &Path) -> Result<PathBuf, Unrestored> {
    let folder = Scratch(scratch).restored();
    let _ = tokio::fs::create_dir_all(&folder).await;
    let path = folder.join("copy.bundle");
    let copied = tokio::fs::copy(bundle, &path).await;
    copied.map_err(|error| Unrestored::Write(format!("failed to write the changes to restore: {error}")))?;
    Ok(path)
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
    // Other changes may have been restored before, which are what it starts from.
    let head = git.run(&["rev-parse", "--verify", "HEAD^{commit}"], stop).await?;
    let restored = try_restore(git, base, bundle, changes, as_commits, stop).await;
    match &restored {
        Ok(()) => base.commit.clone_from(&changes.base_commit),
        Err(_) => {
            drop(git.run(&["reset", "--quiet", "--hard", &head], stop).await);
            // New files are untracked once the last commit was undone. What git ignores was there before, or does no harm.
            drop(git.run(&["clean", "--quiet", "-ffd"], stop).await);
        }
    }
    restored
}

/// Brings other branches back, and the newest of what was stashed, as far as their commits are in a bundle that programs of the
/// attempt may not open. Those that exist stay.
pub(crate) async fn restore_elsewhere(
    git: &Git,
    bundle: &Path,
    scratch: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), Unrestored> {
    let path = for_git(bundle, scratch).await?;
    let restored = try_restore_elsewhere(git, &path, stop).await;
    remove::all(Scratch(scratch).restored()).await;
    restored.map_err(Unrestored::Git)
}

async fn try_restore_elsewhere(
    git: &Git,
    bundle: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    // Checked on the way, as the snapshot is.
    let (objects, folder) = (git.directory.join(".git/objects"), bundle.with_extension("received"));
    let unchecked = receiving(git, &objects, &folder, stop).await?;
    // What the clone has, the bundle is without.
    let clone = git.directory.to_string_lossy();
    let known = ["+HEAD:refs/rota/head", "+refs/remotes/origin/*:refs/rota/origin/*"];
    unchecked.run(&["fetch", "--quiet", "--no-tags", "--", &clone, known[0], known[1]], stop).await?;
    // The clone's own branch is that of the snapshot, which is restored already.
    let own = git.run(&["symbolic-ref", "--short", "HEAD"], stop).await?;
    let received = [format!("+refs/heads/*:{ELSEWHERE}heads/*"), format!("+refs/stash*:{ELSEWHERE}stash*")];
    let taken = [
        format!("{ELSEWHERE}heads/*:refs/heads/*"),
        format!("^{ELSEWHERE}heads/{own}"),
        format!("+{ELSEWHERE}stash*:{ELSEWHERE}stash*"),
    ];
    import_checked(git, &unchecked, bundle, &received, &taken, stop).await?;
    let stash = format!("{ELSEWHERE}stash");
    let found = git.run(&["for-each-ref", "--format=%(refname)", &stash], stop).await?;
    if !found.is_empty() {
        let stored = ["stash", "store", "--message", "stashed before the work was cut off", &stash];
        git.run(&stored, stop).await?;
        git.run(&["update-ref", "-d", &stash], stop).await?;
    }
    Ok(())
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
    let by = git.run(&["log", "-1", "--format=%ae %ce %s", found], stop).await?;
    let by_worker = by == format!("{EMAIL} {EMAIL} {}", message(&changes.branch));
    if !as_commits && by_worker && found != changes.base_commit {
        // Made by the worker of what was not committed.
        git.run(&["reset", "--quiet", "--mixed", "HEAD^"], stop).await?;
    }
    git.run(&["update-ref", "-d", RESTORED], stop).await?;
    git.run(&["update-ref", &base_reference(&base.branch), &changes.base_commit], stop).await.map(drop)
}
