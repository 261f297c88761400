//! Files that checks see as they are in the commit that the task started from, whatever the agent has made of them. The
//! agent's own are kept meanwhile, in the repository, so that the loss of this process does not lose them.

use std::path::PathBuf;

use tokio::sync::watch;

use super::clone::Base;
use super::failure::Cause;
use super::run::{Git, GitError};
use super::snapshot;
use crate::runtimes::Stop;

/// Reference of the agent's files while others are in their place.
const PINNED: &str = "refs/rota/pinned";

/// Pinned files of a repository.
#[derive(Debug)]
pub(crate) struct Pins {
    pub(crate) git: Git,
    pub(crate) base: Base,
    /// Globs, from the root of the repository.
    pub(crate) patterns: Vec<String>,
    /// Folder for the index and the list of files.
    pub(crate) folder: PathBuf,
}

impl Pins {
    /// Puts the files of the commit that the task started from in the place of the agent's.
    pub(crate) async fn put(&self, stop: &mut watch::Receiver<Option<Stop>>) -> Result<(), GitError> {
        let git = self.prepare().await?;
        let commit = snapshot::commit(&git, &self.base, &self.index(), stop).await?;
        git.run(&["update-ref", PINNED, &commit], stop).await?;
        self.list(&git, &commit, stop).await?;
        self.restore(&git, &self.base.commit, stop).await
    }

    /// Puts the agent's files back, if others are in their place.
    pub(crate) async fn release(&self, stop: &mut watch::Receiver<Option<Stop>>) -> Result<(), GitError> {
        let git = self.prepare().await?;
        let wanted = format!("{PINNED}^{{commit}}");
        let commit = match git.run(&["rev-parse", "--verify", "--quiet", &wanted], stop).await {
            Err(GitError::Failed { cause, .. }) if cause != Cause::Machine => return Ok(()),
            found => found?,
        };
        git.run(&["read-tree", &commit], stop).await?;
        self.list(&git, &commit, stop).await?;
        // Files that only the first commit has are known to the index, so that they are removed.
        self.restore(&git, &self.base.commit, stop).await?;
        self.restore(&git, &commit, stop).await?;
        git.run(&["update-ref", "-d", PINNED], stop).await.map(drop)
    }

    async fn prepare(&self) -> Result<Git, GitError> {
        crate::workspace::remove_all(self.folder.clone()).await;
        tokio::fs::create_dir(&self.folder).await.map_err(|error| {
            self.git.failed(Cause::Machine, format!("failed to prepare the pinned files: {error}"))
        })?;
        Ok(snapshot::with_index(&self.git, &self.index()))
    }

    fn index(&self) -> PathBuf {
        self.folder.join("index")
    }

    fn list_file(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// Lists the pinned files that the agent has changed.
    async fn list(
        &self,
        git: &Git,
        commit: &str,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), GitError> {
        let output = format!("--output={}", self.list_file().display());
        let globs: Vec<_> = self.patterns.iter().map(|pattern| format!(":(glob){pattern}")).collect();
        let fixed = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--ignore-submodules"];
        let args = fixed.into_iter().chain([output.as_str(), &self.base.commit, commit, "--"]);
        let args: Vec<_> = args.chain(globs.iter().map(String::as_str)).collect();
        git.run(&args, stop).await.map(drop)
    }

    /// Makes the listed files those of a commit.
    async fn restore(
        &self,
        git: &Git,
        commit: &str,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), GitError> {
        let machine = |error: std::io::Error| {
            self.git.failed(Cause::Machine, format!("failed to read the list of pinned files: {error}"))
        };
        if tokio::fs::symlink_metadata(self.list_file()).await.map_err(machine)?.len() == 0 {
            return Ok(());
        }
        let source = format!("--source={commit}");
        let list = format!("--pathspec-from-file={}", self.list_file().display());
        let args = [
            "--literal-pathspecs",
            "restore",
            &source,
            "--staged",
            "--worktree",
            &list,
            "--pathspec-file-nul",
        ];
        git.run(&args, stop).await.map(drop)
    }
}
