//! Delivery: pushes the snapshot of an attempt to the task's branch, from a repository that no program of the attempt has written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use rota_proto::v1::{Changes, Failure, FailureClass, GitSource, event};
use tokio::sync::watch;
use tokio::time::Instant;

use super::bundle::{self, Bundle};
use super::cache::Caches;
use super::checks::local_path;
use super::failure::Cause;
use super::progress::TIMEOUT;
use super::request::Request;
use super::run::{Git, GitError};
use super::workflows;
use crate::files::remove;
use crate::report::failure;
use crate::supervise::{Group, Jail, Stop};

const MAX_DELAY: Duration = Duration::from_secs(30);
/// How a repository on this machine receives a push. Git does not pass settings of the call on to it, and its own name programs:
/// hooks, the command that lists references of alternates, filters of a checked-out branch, and hooks of its clean-up.
const RECEIVE_PACK: &str = "--receive-pack=git -c core.hooksPath=/dev/null -c core.alternateRefsCommand=true \
    -c core.fsmonitor=false -c receive.denyCurrentBranch=refuse -c receive.autoGC=false receive-pack";

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
    /// Branch that belongs to the task.
    pub(crate) branch: String,
    /// Commit that it had at the host when the attempt began; empty if there was none.
    pub(crate) seen: String,
    /// What git may open while it delivers.
    pub(super) jails: Option<Jails>,
    /// Pull or merge request that follows.
    pub(crate) request: Option<Request>,
    /// Time for which a host that does not respond is tried again.
    pub(crate) patience: Duration,
}

/// What git may open while it makes the repository from which is pushed, and while it pushes.
#[derive(Debug)]
pub(crate) struct Jails {
    pub(crate) prepare: Jail,
    pub(crate) push: Jail,
}

/// Why work is not delivered.
#[derive(Debug)]
pub(crate) struct Undelivered {
    pub(crate) failure: Box<Failure>,
    /// Whether it is kept, and can be delivered later as it is.
    pub(crate) is_kept: bool,
    /// Whether the storage may take the same files later.
    pub(crate) awaits_storage: bool,
    /// What the log gets of it besides: what was stored before.
    pub(crate) notices: Vec<event::Kind>,
}

impl Undelivered {
    /// Returns that of work that can be delivered later.
    pub(crate) fn later(text: String) -> Self {
        Self { is_kept: true, ..failure(FailureClass::Delivery, text).into() }
    }
}

impl From<Failure> for Undelivered {
    fn from(failure: Failure) -> Self {
        Self { failure: Box::new(failure), is_kept: false, awaits_storage: false, notices: Vec::new() }
    }
}

impl Delivery {
    /// Pushes the snapshot in the scratch directory. All errors are of the class `delivery`, unless the machine fails.
    pub(crate) async fn push(&self, changes: &Changes, scratch: &Path) -> Result<(), Undelivered> {
        // A request to end has its own limit.
        let (_sender, stop) = watch::channel(None);
        let push = || async { self.try_push(changes, scratch, &mut stop.clone()).await };
        let backoff = ExponentialBuilder::default()
            .with_max_delay(MAX_DELAY)
            .with_jitter()
            .without_max_times()
            .with_total_delay(Some(self.patience));
        let began = Instant::now();
        // A host where nothing moves takes its time in each try, which the delays between them do not count.
        let is_away = |error: &GitError| {
            matches!(error, GitError::Failed { cause: Cause::Host, .. })
                && began.elapsed() < self.patience + TIMEOUT
        };
        push.retry(backoff).when(is_away).await.map_err(|error| match error {
            GitError::Failed { cause: Cause::Machine, failure } => {
                Undelivered { is_kept: true, ..failure.into() }
            }
            GitError::Failed { failure: failed, cause } => {
                let text = format!("the work is not delivered to {}: {}", self.branch, failed.message);
                // They are replaced without the task.
                let heals = cause == Cause::Credentials && self.git.has_credentials_of_agent();
                let hint = match cause {
                    Cause::HostKey => failed.hint,
                    _ if heals => HINT_CREDENTIALS.to_owned(),
                    _ => HINT.to_owned(),
                };
                let failure = Failure { hint, ..failure(FailureClass::Delivery, text) };
                Undelivered { is_kept: heals || cause.is_of_host(), ..failure.into() }
            }
            GitError::Stopped => Undelivered::later("the worker had to end".to_owned()),
        })
    }

    async fn try_push(
        &self,
        changes: &Changes,
        scratch: &Path,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), GitError> {
        let machine = |error: std::io::Error| self.git.failed(Cause::Machine, format!("delivery: {error}"));
        if let Some(jails) = &self.jails {
            Group::confine_current(jails.prepare.clone());
        }
        remove::all(self.folder.clone()).await;
        tokio::fs::create_dir(&self.folder).await.map_err(machine)?;
        let network = self.git.within(&self.folder.join("repository"));
        tokio::fs::create_dir(&network.directory).await.map_err(machine)?;
        let git = Git { network: None, ..network.clone() };
        let base = GitSource { r#ref: changes.base_commit.clone(), ..self.source.clone() };
        let borrowed = self.caches.borrow(self.cache.clone(), &base, &network, stop).await;
        let borrowed = borrowed.map_err(|error| match error {
            // Nothing was refused yet: the host lacks, perhaps for now, where the work has started.
            GitError::Failed { cause: Cause::Task, failure } => {
                GitError::Failed { cause: Cause::Host, failure }
            }
            error => error,
        })?;
        let objects = borrowed.path.join("objects");
        bundle::borrowing(&git, &objects, stop).await?;
        let (cache, rule) = (borrowed.path.to_string_lossy(), "+refs/remotes/origin/*:refs/remotes/origin/*");
        git.run(&["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", &cache, rule], stop)
            .await?;
        git.run(&["update-ref", "refs/rota/base", &changes.base_commit], stop).await?;
        let bundle = Bundle { path: scratch.join(&changes.bundle), changes };
        bundle.unpack(&git, &objects, &self.folder.join("received"), "refs/rota/changes", stop).await?;
        let push = self.source.push.clone().unwrap_or_default();
        workflows::check(&git, &push, &changes.commit, stop).await?;
        let lease = format!("--force-with-lease=refs/heads/{}:{}", self.branch, self.seen);
        let rule = format!("{}:refs/heads/{}", changes.commit, self.branch);
        let mut push = vec!["push", "--quiet", "--no-verify", "--recurse-submodules=no", &lease];
        if local_path(&self.source.url).is_some() {
            push.push(RECEIVE_PACK);
        }
        push.extend(["--", &self.source.url, &rule]);
        if let Some(jails) = &self.jails {
            Group::confine_current(jails.push.clone());
        }
        network.run(&push, stop).await.map(drop)
    }
}

const HINT_CREDENTIALS: &str = "replace the agent's credentials of the repository, or give them access to it: the work is then delivered";
const HINT: &str = "the changes are kept: see `rota diff TASK`, and `rota apply-diff TASK --branch NAME` to push them yourself";
