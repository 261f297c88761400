//! Delivery: pushes the snapshot of an attempt to the task's branch, from a repository that no program of the attempt has written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use rota_proto::v1::{Changes, Failure, FailureClass, GitSource, Push, WorkflowFiles};
use tokio::sync::watch;

use super::cache::Caches;
use super::failure::Cause;
use super::run::{Git, GitError};
use super::snapshot;
use crate::runtimes::{Stop, failure};
use crate::supervise::{Group, Jail};

/// Time for which a host that does not respond is tried again.
const RETRY_FOR: Duration = Duration::from_secs(600);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// Files that decide what a forge runs, with its secrets.
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

/// What is needed to push once the attempt has ended.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(super) source: GitSource,
    pub(super) caches: Caches,
    pub(super) cache: PathBuf,
    /// How git is called, with access to the host.
    pub(super) git: Git,
    /// Folder for the repository from which is pushed.
    pub(super) folder: PathBuf,
    pub(super) branch: String,
    /// Commit that the task's branch had at the host when the attempt began: of an earlier attempt. Empty if there was none.
    pub(super) seen: String,
    /// What git may open while it pushes.
    pub(super) jail: Option<Jail>,
}

impl Delivery {
    /// Pushes the snapshot in the scratch directory. All errors are of the class `delivery`, unless the machine fails.
    pub(crate) async fn push(&self, changes: &Changes, scratch: &Path) -> Result<(), Failure> {
        if let Some(jail) = &self.jail {
            Group::confine_current(jail.clone());
        }
        // A request to end has its own limit.
        let (_sender, stop) = watch::channel(None);
        let push = || async { self.try_push(changes, scratch, &mut stop.clone()).await };
        let backoff = ExponentialBuilder::default()
            .with_max_delay(MAX_DELAY)
            .with_jitter()
            .without_max_times()
            .with_total_delay(Some(RETRY_FOR));
        let is_away = |error: &GitError| matches!(error, GitError::Failed { cause: Cause::Host, .. });
        push.retry(backoff).when(is_away).await.map_err(|error| match error {
            GitError::Failed { cause: Cause::Machine, failure } => failure,
            GitError::Failed { failure: failed, .. } => {
                let text = format!("the work is not delivered to {}: {}", self.branch, failed.message);
                Failure { hint: HINT.to_owned(), ..failure(FailureClass::Delivery, text) }
            }
            GitError::Stopped => failure(FailureClass::Delivery, "the worker had to end"),
        })
    }

    async fn try_push(
        &self,
        changes: &Changes,
        scratch: &Path,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), GitError> {
        let machine = |error: std::io::Error| self.git.failed(Cause::Machine, format!("delivery: {error}"));
        crate::workspace::remove_all(self.folder.clone()).await;
        tokio::fs::create_dir(&self.folder).await.map_err(machine)?;
        let network = self.git.within(&self.folder);
        let git = Git { network: None, ..network.clone() };
        let base = GitSource { r#ref: changes.base_commit.clone(), ..self.source.clone() };
        let borrowed = self.caches.borrow(self.cache.clone(), &base, &network, stop).await?;
        git.run(&["init", "--quiet", "--bare", "--template="], stop).await?;
        let alternates = format!("{}\n", borrowed.path.join("objects").display());
        let at = self.folder.join("objects/info/alternates");
        tokio::fs::write(at, alternates).await.map_err(machine)?;
        git.run(&["update-ref", "refs/rota/base", &changes.base_commit], stop).await?;
        let bundle = scratch.join(&changes.bundle);
        let bundle = bundle.to_string_lossy();
        let rule = format!("+{}:refs/rota/changes", snapshot::SNAPSHOT);
        // Objects that an agent made by hand may do harm where they are checked out.
        let fetch = ["-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--", &bundle, &rule];
        git.run(&fetch, stop).await?;
        let found = git.run(&["rev-parse", "--verify", "refs/rota/changes^{commit}"], stop).await?;
        if found != changes.commit {
            return Err(git.failed(Cause::Task, "the bundle has another commit".to_owned()));
        }
        self.check_workflows(changes, &git, stop).await?;
        let lease = format!("--force-with-lease=refs/heads/{}:{}", self.branch, self.seen);
        let rule = format!("{}:refs/heads/{}", changes.commit, self.branch);
        let push = [
            "push",
            "--quiet",
            "--no-verify",
            "--recurse-submodules=no",
            &lease,
            "--",
            &self.source.url,
            &rule,
        ];
        network.run(&push, stop).await.map(drop)
    }

    /// Fails if the changes would change what the forge runs.
    async fn check_workflows(
        &self,
        changes: &Changes,
        git: &Git,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), GitError> {
        if self.source.push.as_ref().is_some_and(|push: &Push| push.workflow_files() == WorkflowFiles::Allow)
        {
            return Ok(());
        }
        let args = ["diff", "--name-only", "--no-renames", &changes.base_commit, &changes.commit, "--"];
        let args: Vec<_> = args.into_iter().chain(WORKFLOWS).collect();
        let changed = git.run(&args, stop).await?;
        if changed.is_empty() {
            return Ok(());
        }
        let text = format!(
            "it changes what the forge runs, which `push.workflowFiles: Allow` would permit: {}",
            changed.lines().collect::<Vec<_>>().join(", ")
        );
        Err(git.failed(Cause::Task, text))
    }
}

const HINT: &str = "the changes are kept: see `rota diff TASK`, and `rota apply-diff TASK --branch NAME` to push them yourself";
