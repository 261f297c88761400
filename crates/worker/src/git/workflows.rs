//! Files that decide what a forge runs, with its secrets: who pushes them runs them.

use rota_proto::v1::{Push, WorkflowFiles};
use tokio::sync::watch;

use super::failure::Cause;
use super::run::{Git, GitError};
use crate::runtimes::Stop;

const WORKFLOWS: [&str; 15] = [
    ".github/workflows",
    ".github/actions",
    ".gitlab-ci.yml",
    ".gitea/workflows",
    ".forgejo/workflows",
    ".circleci",
    ".buildkite",
    ".woodpecker",
    ".woodpecker.yml",
    ".woodpecker.yaml",
    ".drone.yml",
    ".travis.yml",
    "Jenkinsfile",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
];

/// Fails if a commit that no branch of the host has changes such a file, unless `push` permits it. `git` runs in a repository with
/// the host's branches, which no agent has written: what a task started from may be a stranger's.
pub(super) async fn check(
    git: &Git,
    push: &Push,
    commit: &str,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    if push.workflow_files() == WorkflowFiles::Allow {
        return Ok(());
    }
    let args =
        ["log", "--format=", "--name-only", "--no-renames", "--full-history", "--diff-merges=combined"];
    let range = [commit, "--not", "--remotes=origin", "--"];
    let args: Vec<_> = args.into_iter().chain(range).chain(WORKFLOWS).collect();
    let changed = git.run(&args, stop).await?;
    if changed.is_empty() {
        return Ok(());
    }
    let mut files: Vec<_> = changed.lines().filter(|line| !line.is_empty()).collect();
    files.sort_unstable();
    files.dedup();
    let text = format!(
        "it changes what the forge runs, which `push.workflowFiles: Allow` would permit: {}",
        files.join(", ")
    );
    Err(git.failed(Cause::Task, text))
}
