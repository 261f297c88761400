//! The caller's own repository: calls of git in it, and the commit that a task may start from.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

use crate::exit::{Exit, Failure};

/// A work tree of git.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
}

/// What a call of git has printed.
pub(super) struct Answer {
    pub(super) succeeded: bool,
    pub(super) out: String,
    pub(super) errors: String,
}

impl Tree {
    /// Finds the work tree around a directory.
    pub(super) async fn around(directory: &Path) -> anyhow::Result<Self> {
        let here = Self { root: directory.to_owned() };
        let answer = here.call(&["rev-parse", "--show-toplevel"], &[]).await?;
        if !answer.succeeded {
            let message = format!("{} is in no git repository", directory.display());
            return Err(Failure::new(Exit::Usage, message).causes(vec![answer.errors]).into());
        }
        Ok(Self { root: answer.out.into() })
    }

    /// Runs git. Errors: it cannot be started.
    pub(super) async fn call(&self, args: &[&str], environment: &[(&str, &Path)]) -> anyhow::Result<Answer> {
        let done = Command::new("git")
            .args(args)
            .current_dir(&self.root)
            .envs(environment.iter().copied())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("failed to run git")?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        Ok(Answer { succeeded: done.status.success(), out: text(done.stdout), errors: text(done.stderr) })
    }

    /// Runs git, and returns what it printed. Errors: it fails.
    pub(super) async fn git(&self, args: &[&str], environment: &[(&str, &Path)]) -> anyhow::Result<String> {
        let answer = self.call(args, environment).await?;
        if !answer.succeeded {
            let message = format!("git {} failed", args.first().copied().unwrap_or_default());
            return Err(Failure::new(Exit::Failed, message).causes(vec![answer.errors]).into());
        }
        Ok(answer.out)
    }
}

/// The caller's files as a commit that tasks can fetch, for as long as this is not removed.
pub struct Start {
    tree: Tree,
    /// Reference that keeps the commit.
    pub reference: String,
}

impl Start {
    /// Commits the files around a directory, as they are, also those that are new and not ignored. Leaves branch and index alone.
    pub async fn commit(directory: &Path) -> anyhow::Result<Self> {
        let tree = Tree::around(directory).await?;
        let folder = tempfile::tempdir().context("failed to create a temporary directory")?;
        let index = folder.path().join("index");
        let with_index = [("GIT_INDEX_FILE", index.as_path())];
        let head = tree.git(&["rev-parse", "--verify", "HEAD^{commit}"], &[]).await?;
        tree.git(&["read-tree", "-m", &head], &with_index).await?;
        tree.git(&["add", "--all", "--sparse"], &with_index).await?;
        let files = tree.git(&["write-tree"], &with_index).await?;
        let message = "Files that a task started from";
        let who = ["-c", "user.name=Rota", "-c", "user.email=rota@localhost"];
        let commit = ["commit-tree", "--no-gpg-sign", "-p", &head, "-m", message, &files];
        let commit: Vec<_> = who.into_iter().chain(commit).collect();
        let commit = match files == tree.git(&["rev-parse", &format!("{head}^{{tree}}")], &[]).await? {
            true => head.clone(),
            false => tree.git(&commit, &[]).await?,
        };
        let reference = format!("refs/rota/start/{}", uuid::Uuid::new_v4());
        tree.git(&["update-ref", &reference, &commit], &[]).await?;
        Ok(Self { tree, reference })
    }

    /// Returns the root of the work tree.
    pub fn root(&self) -> &Path {
        &self.tree.root
    }

    /// Removes the reference, which keeps nothing from being applied.
    pub async fn remove(self) -> anyhow::Result<()> {
        self.tree.git(&["update-ref", "-d", &self.reference], &[]).await.map(drop)
    }
}
