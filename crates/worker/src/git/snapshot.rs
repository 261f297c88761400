//! What an attempt leaves in its repository: all commits and files since it began, whatever the agent did with branches and
//! index, as a bundle and a patch. Made through an index of its own, within the attempt's walls: settings and filters of the
//! repository are the agent's.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use cap_std::fs::{Dir, OpenOptions};
use rota_proto::artifact_names::BRANCHES;
use rota_proto::v1::Changes;
use tokio::sync::watch;

use super::clone::Base;
use super::failure::Cause;
use super::run::{Git, GitError};
use crate::layout::{GIT, Scratch};
use crate::program_dir;
use crate::supervise::Stop;

/// Names of the other files in it.
const BUNDLE: &str = "changes.bundle";
const PATCH: &str = "changes.patch";
const INDEX: &str = "index";
/// Makes git look at all files, also at those that the agent has flagged not to be looked at. With a sparse checkout, one of the
/// flags is git's own.
const UNFLAG: &str = "alias.unflag=!git ls-files -z | git update-index -z --no-assume-unchanged --stdin && \
    { test \"$(git config --type=bool core.sparseCheckout)\" = true || \
    git ls-files -z | git update-index -z --no-skip-worktree --stdin; }";
/// Who commits what an agent has not.
const NAME: &str = "Rota";
pub(super) const EMAIL: &str = "rota@localhost";
/// Reference of the snapshot, in the repository and in the bundle.
pub(super) const SNAPSHOT: &str = "refs/rota/changes";
const STASH: &str = "refs/stash";
/// Bytes of a patch; the bundle has everything.
const MAX_PATCH: u64 = 64 << 20;
const MAX_INDEX: u64 = 1 << 30;

/// What an attempt has left in its repository.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) changes: Changes,
    /// Whether there are commits besides: on other branches, or stashed.
    pub(crate) elsewhere: bool,
}

/// Makes the files in the scratch directory, and returns what they contain. `git` runs in the workspace.
pub(crate) async fn snapshot(
    git: &Git,
    base: &Base,
    scratch: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Snapshot, GitError> {
    let at = scratch.to_owned();
    let folder = blocking(git, move || empty_folder(&at).map(Arc::new)).await?;
    let path = |name: &str| Scratch(scratch).git().join(name).to_string_lossy().into_owned();
    let git = with_index(git, path(INDEX));
    let commit = commit(&git, base, &folder, stop).await?;
    let branches = scratch.join(BRANCHES).to_string_lossy().into_owned();
    let elsewhere = match elsewhere(&git, base, &commit, &branches, stop).await {
        Ok(elsewhere) => elsewhere,
        Err(GitError::Stopped) => return Err(GitError::Stopped),
        Err(GitError::Failed { failure, .. }) => {
            tracing::warn!(reason = failure.message, "failed to keep the commits of other branches");
            false
        }
    };
    let mut changes = Changes {
        base_commit: base.commit.clone(),
        branch: base.branch.clone(),
        commit,
        ..Changes::default()
    };
    if changes.commit == changes.base_commit {
        return Ok(Snapshot { changes, elsewhere });
    }
    let (base, commit) = (changes.base_commit.clone(), changes.commit.clone());
    count(
        &git.run(&["diff-tree", "--shortstat", "--no-ext-diff", "--no-textconv", &base, &commit], stop)
            .await?,
        &mut changes,
    );
    git.run(&["update-ref", SNAPSHOT, &commit], stop).await?;
    let not_base = format!("^{base}");
    git.run(&["bundle", "create", "--quiet", &path(BUNDLE), SNAPSHOT, &not_base], stop).await?;
    changes.bundle = format!("{GIT}/{BUNDLE}");
    let output = format!("--output={}", path(PATCH));
    // A call that takes no settings of how differences look.
    let args = ["diff-tree", "-p", "--binary", "--full-index", "--no-ext-diff", "--no-textconv"];
    let args: Vec<_> = args.into_iter().chain([output.as_str(), &base, &commit]).collect();
    // The bundle has everything.
    match git.run(&args, stop).await {
        Err(GitError::Failed { cause, failure }) if cause != Cause::Machine => {
            tracing::warn!(reason = failure.message, "failed to make the patch of an attempt");
        }
        made => {
            made?;
            let size = blocking(&git, move || Ok(folder.symlink_metadata(PATCH)?.len())).await?;
            if size <= MAX_PATCH {
                changes.patch = format!("{GIT}/{PATCH}");
            }
        }
    }
    Ok(Snapshot { changes, elsewhere })
}

/// Does what blocks. Its errors are not the machine's unless that takes no files, of which the caller makes sure.
async fn blocking<T: Send + 'static>(
    git: &Git,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, GitError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(|error| git.failed(Cause::Task, format!("failed to keep changes: {error}")))
}

/// Makes an empty folder in the scratch directory. What is there may be of an agent, which may work meanwhile: no link is followed.
fn empty_folder(scratch: &Path) -> io::Result<Dir> {
    let scratch = program_dir::open(scratch)?;
    program_dir::remove(&scratch, Path::new(GIT))?;
    scratch.create_dir(GIT)?;
    scratch.open_dir(GIT)
}

/// Bundles the commits that are not in the snapshot: those of other branches, of a rebase that is not complete, and stashed ones.
/// Returns whether there are any.
async fn elsewhere(
    git: &Git,
    base: &Base,
    commit: &str,
    bundle: &str,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<bool, GitError> {
    let mut which = vec!["--branches"];
    if succeeded(git.run(&["rev-parse", "--verify", "--quiet", STASH], stop).await)? {
        which.push(STASH);
    }
    which.extend(["--not", commit, &base.commit, "--remotes=origin"]);
    let call = |args: &[&'static str]| [args, &which[..]].concat();
    if git.run(&call(&["rev-list", "--count"]), stop).await? == "0" {
        return Ok(false);
    }
    let args: Vec<_> = ["bundle", "create", "--quiet", bundle].into_iter().chain(which).collect();
    git.run(&args, stop).await.map(|_| true)
}

/// Returns git with an index of its own, which commits in the name of the worker.
fn with_index(git: &Git, index: String) -> Git {
    let mut git = git.clone();
    for (name, value) in [
        ("GIT_DIR", git.directory.join(".git").to_string_lossy().into_owned()),
        ("GIT_WORK_TREE", git.directory.to_string_lossy().into_owned()),
        ("GIT_INDEX_FILE", index),
        ("GIT_AUTHOR_NAME", NAME.to_owned()),
        ("GIT_AUTHOR_EMAIL", EMAIL.to_owned()),
        ("GIT_COMMITTER_NAME", NAME.to_owned()),
        ("GIT_COMMITTER_EMAIL", EMAIL.to_owned()),
    ] {
        git.environment.0.insert(name.to_owned(), value);
    }
    git
}

/// Returns the commit with everything that is in the work tree, which is the current one if nothing differs from it. The base
/// is before it, also where the agent has moved to an earlier commit.
async fn commit(
    git: &Git,
    base: &Base,
    folder: &Arc<Dir>,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<String, GitError> {
    let head = match git.run(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], stop).await {
        Ok(head) => head,
        // The agent has begun a history of its own, or has broken it.
        Err(GitError::Failed { cause, .. }) if cause != Cause::Machine => base.commit.clone(),
        Err(error) => return Err(error),
    };
    let ahead = git.run(&["rev-list", "--count", &format!("{}..{head}", base.commit)], stop).await?;
    let head = if ahead == "0" { base.commit.clone() } else { head };
    // The agent's own index knows which folders are not checked out.
    let (repository, to) = (git.directory.clone(), Arc::clone(folder));
    let copied = blocking(git, move || copy_index(&repository, &to)).await.is_ok();
    let added = copied
        && succeeded(git.run(&["-c", UNFLAG, "unflag"], stop).await)?
        && add(git, &["--sparse"], stop).await?;
    if !added {
        let folder = Arc::clone(folder);
        let _ = blocking(git, move || folder.remove_file(INDEX)).await;
        git.run(&["read-tree", &head], stop).await?;
        // Without files that cannot be read.
        add(git, &[], stop).await?;
    }
    let tree = git.run(&["write-tree"], stop).await?;
    if tree == git.run(&["rev-parse", "--verify", &format!("{head}^{{tree}}")], stop).await? {
        return Ok(head);
    }
    let message = message(&base.branch);
    // The same files are the same commit, so that they are stored once.
    let date = git.run(&["show", "--no-patch", "--format=%cI", &head], stop).await?;
    let mut git = git.clone();
    for name in ["GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"] {
        git.environment.0.insert(name.to_owned(), date.clone());
    }
    git.run(&["commit-tree", "--no-gpg-sign", "-p", &head, "-m", &message, &tree], stop).await
}

/// Returns the message of the commit with what was not committed.
pub(super) fn message(branch: &str) -> String {
    format!("Changes of {branch}")
}

/// Adds all files to the index. Returns whether none had to be left out.
async fn add(git: &Git, more: &[&str], stop: &mut watch::Receiver<Option<Stop>>) -> Result<bool, GitError> {
    let args: Vec<_> = ["add", "--all", "--ignore-errors"].into_iter().chain(more.iter().copied()).collect();
    succeeded(git.run(&args, stop).await)
}

/// Returns whether a call has succeeded that an agent can make fail.
fn succeeded(ended: Result<String, GitError>) -> Result<bool, GitError> {
    match ended {
        Err(GitError::Failed { cause, .. }) if cause != Cause::Machine => Ok(false),
        ended => ended.map(|_| true),
    }
}

/// Copies the index of a repository. Its owner may have put anything in its place. The copy has the time of the original: git reads
/// a file again only if it is not older than the index, and compares the rest by size and seconds.
fn copy_index(workspace: &Path, to: &Dir) -> io::Result<()> {
    let repository = program_dir::open(workspace)?.open_dir(".git")?;
    let from = program_dir::open_file(&repository, Path::new("index"), OpenOptions::new().read(true))?;
    let modified = from.metadata()?.modified()?;
    let mut to = to.open_with(INDEX, OpenOptions::new().write(true).create_new(true))?;
    io::copy(&mut from.take(MAX_INDEX), &mut to)?;
    to.into_std().set_modified(modified)
}

/// Reads the numbers of ` 3 files changed, 10 insertions(+), 2 deletions(-)`.
fn count(line: &str, changes: &mut Changes) {
    for part in line.split(',') {
        let mut words = part.split_whitespace();
        let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match words.next() {
            Some("file" | "files") => changes.files = number,
            Some(word) if word.starts_with("insertion") => changes.insertions = number,
            Some(word) if word.starts_with("deletion") => changes.deletions = number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn change_in_the_second_of_the_checkout_is_seen() {
        let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let git = |args: &[&str]| {
            let mut git = std::process::Command::new("git");
            let git = git.args(["-c", "core.trustctime=false"]).args(args).current_dir(&folder);
            let done = git.env("GIT_INDEX_FILE", copy.path().join(INDEX)).output().unwrap();
            assert!(done.status.success(), "{done:?}");
            String::from_utf8(done.stdout).unwrap()
        };
        let then = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let touch = |path: &Path| std::fs::File::options().write(true).open(path)?.set_modified(then);
        let (file, original) = (folder.path().join("a"), folder.path().join(".git/index"));
        git(&["init", "--quiet"]);
        std::fs::write(&file, "1").unwrap();
        touch(&file).unwrap();
        git(&["add", "a"]);
        std::fs::rename(copy.path().join(INDEX), &original).unwrap();
        touch(&original).unwrap();
        std::fs::write(&file, "2").unwrap();
        touch(&file).unwrap();
        let to = Dir::open_ambient_dir(copy.path(), cap_std::ambient_authority()).unwrap();
        copy_index(folder.path(), &to).unwrap();
        assert_eq!(git(&["ls-files", "--modified"]), "a\n");
    }

    #[test]
    fn counts_are_read() {
        for (line, numbers) in [
            (" 3 files changed, 10 insertions(+), 2 deletions(-)", (3, 10, 2)),
            (" 1 file changed, 1 deletion(-)", (1, 0, 1)),
            ("", (0, 0, 0)),
        ] {
            let mut changes = Changes::default();
            count(line, &mut changes);
            assert_eq!((changes.files, changes.insertions, changes.deletions), numbers);
        }
    }
}
