//! What an attempt leaves in its repository: all commits and files since it began, whatever the agent did with branches and
//! index, as a bundle and a patch. Made through an index of its own, within the attempt's walls: settings and filters of the
//! repository are the agent's.

use std::io::{self, Read};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use nix::fcntl::OFlag;
use rota_proto::v1::Changes;
use tokio::sync::watch;

use super::clone::Base;
use super::failure::Cause;
use super::run::{Git, GitError};
use crate::runtimes::Stop;

/// Folder of the scratch directory, and of the artifacts.
pub(crate) const FOLDER: &str = "git";
/// Names of the files in it.
const BUNDLE: &str = "changes.bundle";
const PATCH: &str = "changes.patch";
/// Who commits what an agent has not.
pub(super) const COMMITTER: &str = "Rota <rota@localhost>";
/// Reference of the snapshot, in the repository and in the bundle.
pub(super) const SNAPSHOT: &str = "refs/rota/changes";
/// Bytes of a patch; the bundle has everything.
const MAX_PATCH: u64 = 64 << 20;
const MAX_INDEX: u64 = 1 << 30;

/// Makes the files in the scratch directory, and returns what they contain. `git` runs in the workspace.
pub(crate) async fn snapshot(
    git: &Git,
    base: &Base,
    scratch: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Changes, GitError> {
    let machine =
        |error: std::io::Error| git.failed(Cause::Machine, format!("failed to keep changes: {error}"));
    let folder = scratch.join(FOLDER);
    // An agent may have made it.
    crate::workspace::remove_all(folder.clone()).await;
    tokio::fs::create_dir(&folder).await.map_err(machine)?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let index = folder.join("index");
    let git = with_index(git, &index);
    let commit = commit(&git, base, &index, stop).await;
    // Not an artifact.
    let _ = tokio::fs::remove_file(&index).await;
    let commit = commit?;
    let mut changes = Changes {
        base_commit: base.commit.clone(),
        branch: base.branch.clone(),
        commit,
        ..Changes::default()
    };
    if changes.commit == changes.base_commit {
        return Ok(changes);
    }
    let (base, commit) = (changes.base_commit.clone(), changes.commit.clone());
    count(
        &git.run(&["diff", "--shortstat", "--no-ext-diff", "--no-textconv", &base, &commit], stop).await?,
        &mut changes,
    );
    git.run(&["update-ref", SNAPSHOT, &commit], stop).await?;
    let not_base = format!("^{base}");
    git.run(&["bundle", "create", "--quiet", &path(BUNDLE), SNAPSHOT, &not_base], stop).await?;
    changes.bundle = format!("{FOLDER}/{BUNDLE}");
    let output = format!("--output={}", path(PATCH));
    let args = ["diff", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv"];
    let args: Vec<_> = args.into_iter().chain([output.as_str(), &base, &commit]).collect();
    git.run(&args, stop).await?;
    let size = tokio::fs::symlink_metadata(path(PATCH)).await.map_err(machine)?.len();
    if size <= MAX_PATCH {
        changes.patch = format!("{FOLDER}/{PATCH}");
    } else {
        tokio::fs::remove_file(path(PATCH)).await.map_err(machine)?;
    }
    Ok(changes)
}

/// Returns git with an index of its own, which commits in the name of the worker.
fn with_index(git: &Git, index: &Path) -> Git {
    let mut git = git.clone();
    for (name, value) in [
        ("GIT_DIR", git.directory.join(".git").to_string_lossy().into_owned()),
        ("GIT_WORK_TREE", git.directory.to_string_lossy().into_owned()),
        ("GIT_INDEX_FILE", index.to_string_lossy().into_owned()),
        ("GIT_AUTHOR_NAME", "Rota".to_owned()),
        ("GIT_AUTHOR_EMAIL", "rota@localhost".to_owned()),
        ("GIT_COMMITTER_NAME", "Rota".to_owned()),
        ("GIT_COMMITTER_EMAIL", "rota@localhost".to_owned()),
    ] {
        git.environment.0.insert(name.to_owned(), value);
    }
    git
}

/// Returns the commit with everything that is in the work tree, which is the current one if nothing differs from it.
async fn commit(
    git: &Git,
    base: &Base,
    index: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<String, GitError> {
    let head = match git.run(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], stop).await {
        Ok(head) => head,
        Err(GitError::Stopped) => return Err(GitError::Stopped),
        // The agent has begun a history of its own, or has broken it.
        Err(GitError::Failed { .. }) => base.commit.clone(),
    };
    // The agent's own index knows which folders are not checked out.
    let repository = git.directory.clone();
    let to = index.to_owned();
    let copied = tokio::task::spawn_blocking(move || copy_index(&repository, &to)).await;
    let is_copied = matches!(copied, Ok(Ok(())));
    let mut added = false;
    if is_copied {
        added = add(git, &["--sparse"], stop).await?;
    }
    if !added {
        let _ = tokio::fs::remove_file(index).await;
        git.run(&["read-tree", &head], stop).await?;
        // Without files that cannot be read.
        add(git, &[], stop).await?;
    }
    let tree = git.run(&["write-tree"], stop).await?;
    if tree == git.run(&["rev-parse", "--verify", &format!("{head}^{{tree}}")], stop).await? {
        return Ok(head);
    }
    let message = format!("Changes of {}", base.branch);
    // The same files are the same commit, so that they are stored once.
    let date = git.run(&["show", "--no-patch", "--format=%cI", &head], stop).await?;
    let mut git = git.clone();
    for name in ["GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"] {
        git.environment.0.insert(name.to_owned(), date.clone());
    }
    git.run(&["commit-tree", "--no-gpg-sign", "-p", &head, "-m", &message, &tree], stop).await
}

/// Adds all files to the index. Returns whether none had to be left out.
async fn add(git: &Git, more: &[&str], stop: &mut watch::Receiver<Option<Stop>>) -> Result<bool, GitError> {
    let args: Vec<_> = ["add", "--all", "--ignore-errors"].into_iter().chain(more.iter().copied()).collect();
    match git.run(&args, stop).await {
        Err(GitError::Failed { cause, .. }) if cause != Cause::Machine => Ok(false),
        added => added.map(|_| true),
    }
}

/// Copies the index of a repository. Its owner may have put anything in its place.
fn copy_index(workspace: &Path, to: &Path) -> io::Result<()> {
    let repository = Dir::open_ambient_dir(workspace, ambient_authority())?.open_dir(".git")?;
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let from = repository.open_with("index", OpenOptions::new().read(true).custom_flags(flags.bits()))?;
    if !from.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut to = std::fs::File::create_new(to)?;
    io::copy(&mut from.take(MAX_INDEX), &mut to).map(drop)
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
    use super::*;

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
