//! The bundle of an attempt on its way into the caller's repository: agents can make objects by hand that do harm where they are checked
//! out. Git checks what it fetches from a repository, and up to version 2.45 not what it fetches from a bundle.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::local::{Answer, Tree};
use crate::exit::{Exit, Failure};

/// Reference of the changes in the bundle.
pub(super) const CHANGES: &str = "refs/rota/changes";
/// Settings of calls that are no reason to tidy up.
const QUIET: [&str; 4] = ["-c", "gc.auto=0", "-c", "maintenance.auto=false"];

/// A repository between a bundle and the caller's: it borrows the objects of that one, and has those of the bundle.
pub(super) struct Received {
    repository: PathBuf,
    /// Objects of the caller's repository.
    objects: PathBuf,
    /// Commit that the attempt has left.
    commit: String,
}

impl Received {
    /// Creates it in a folder.
    pub(super) async fn new(folder: &Path, tree: &Tree, commit: &str) -> anyhow::Result<Self> {
        let repository = folder.join("received.git");
        let path = async |name: &str| -> anyhow::Result<PathBuf> {
            Ok(tree.root.join(tree.git(&["rev-parse", "--git-path", name], &[]).await?))
        };
        let (objects, shallow) = (path("objects").await?, path("shallow").await?);
        let received = Self { repository, objects, commit: commit.to_owned() };
        received.git(tree, &["init", "--quiet", "--bare", "--template="]).await?;
        let line = format!("{}\n", received.objects.display());
        let alternates = received.repository.join("objects/info/alternates");
        tokio::fs::write(alternates, line).await.context("failed to write a temporary repository")?;
        // Without the list of commits whose parents are missing, git looks for them.
        if shallow.is_file() {
            tokio::fs::copy(shallow, received.repository.join("shallow")).await?;
        }
        Ok(received)
    }

    /// Takes the commits of a bundle, which need some of the caller's. The settings of the caller's repository hold, also for one that
    /// fetches objects when it needs them.
    pub(super) async fn take(&self, tree: &Tree, bundle: &Path) -> anyhow::Result<Answer> {
        let bundle = bundle.to_str().context("the temporary directory has no UTF-8 name")?;
        let own = self.repository.join("objects");
        let environment =
            [("GIT_OBJECT_DIRECTORY", own.as_path()), ("GIT_ALTERNATE_OBJECT_DIRECTORIES", &self.objects)];
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", bundle, CHANGES];
        let answer = tree.call(&[&QUIET[..], &fetch].concat(), &environment).await?;
        if answer.succeeded {
            let heads = tree.git(&["bundle", "list-heads", bundle, CHANGES], &[]).await?;
            if heads.split_whitespace().next() != Some(self.commit.as_str()) {
                let message = format!("the bundle of the attempt does not have its commit {}", self.commit);
                return Err(Failure::new(Exit::Failed, message).into());
            }
            self.git(tree, &["update-ref", CHANGES, &self.commit]).await?;
        }
        Ok(answer)
    }

    /// Gives the commits to the caller's repository by this rule, if git finds nothing wrong with their objects.
    pub(super) async fn give(&self, tree: &Tree, rule: &str) -> anyhow::Result<Answer> {
        let from = self.repository.to_str().context("the temporary directory has no UTF-8 name")?;
        let checked =
            ["-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        tree.call(&[&checked[..], &["--", from, rule]].concat(), &[]).await
    }

    async fn git(&self, tree: &Tree, args: &[&str]) -> anyhow::Result<()> {
        let repository = self.repository.to_str().context("the temporary directory has no UTF-8 name")?;
        tree.git(&[&["--git-dir", repository], args].concat(), &[]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tree(at: &Path, files: &[(&str, &str)]) -> Tree {
        let tree = Tree { root: at.to_owned() };
        std::fs::create_dir_all(at).unwrap();
        tree.git(&["init", "--quiet"], &[]).await.unwrap();
        commit(&tree, files).await;
        tree
    }

    async fn commit(tree: &Tree, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            std::fs::write(tree.root.join(name), text).unwrap();
        }
        let by = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
        tree.git(&["add", "--all"], &[]).await.unwrap();
        tree.git(&[&by[..], &["commit", "--quiet", "--allow-empty", "-m", "x"]].concat(), &[]).await.unwrap();
        tree.git(&["rev-parse", "HEAD"], &[]).await.unwrap()
    }

    #[tokio::test]
    async fn only_the_commit_of_the_attempt_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let agent = tree(&folder.path().join("agent"), &[("a", "one\n")]).await;
        let (from, to) = (agent.root.to_str().unwrap(), folder.path().join("user"));
        agent.git(&["clone", "--quiet", from, to.to_str().unwrap()], &[]).await.unwrap();
        let user = Tree { root: to };
        let made = commit(&agent, &[("a", "two\n"), ("b", "new\n")]).await;
        agent.git(&["update-ref", CHANGES, &made], &[]).await.unwrap();
        let bundle = folder.path().join("changes.bundle");
        let create = ["bundle", "create", "--quiet", bundle.to_str().unwrap(), CHANGES, "^HEAD~1"];
        agent.git(&create, &[]).await.unwrap();

        let at = |name: &str| {
            let at = folder.path().join(name);
            std::fs::create_dir(&at).unwrap();
            at
        };
        let other = Received::new(&at("other"), &user, &"1".repeat(40)).await.unwrap();
        let failed = other.take(&user, &bundle).await.err().unwrap().to_string();
        assert!(failed.contains("does not have its commit 1111"), "{failed}");
        assert!(!user.call(&["cat-file", "-e", &made], &[]).await.unwrap().succeeded, "nothing came yet");

        let received = Received::new(&at("own"), &user, &made).await.unwrap();
        assert!(received.take(&user, &bundle).await.unwrap().succeeded);
        assert!(!user.call(&["cat-file", "-e", &made], &[]).await.unwrap().succeeded, "nothing came yet");
        let given = received.give(&user, &format!("{CHANGES}:refs/heads/try")).await.unwrap();
        assert!(given.succeeded, "{}", given.errors);
        assert_eq!(user.git(&["show", "try:b"], &[]).await.unwrap(), "new");

        let stranger = tree(&folder.path().join("stranger"), &[("a", "other\n")]).await;
        let received = Received::new(&at("stranger-received"), &stranger, &made).await.unwrap();
        assert!(!received.take(&stranger, &bundle).await.unwrap().succeeded, "without the first commit");
    }
}
