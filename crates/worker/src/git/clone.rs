//! The clone of one attempt: on a branch of its own, with remote-tracking references as any clone has.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rota_proto::v1::{Failure, GitSource};
use rota_proto::worker::v1::Assign;
use rota_telemetry::redact::Redactor;
use tokio::sync::watch;

use super::cache::{Borrowed, Caches};
use super::checks::{is_commit, is_reference, local_path};
use super::credential::Credential;
use super::failure::Cause;
use super::include::IncludeError;
use super::push::{Delivery, Jails};
use super::request::Request;
use super::run::{Git, GitError, Network};
use super::workflows;
use crate::supervise::{Environment, Stop, stopped};

const HINT_INCLUDE: &str =
    "name fewer files in the `.worktreeinclude` of the checkout, and only some that the worker may read";

const LFS_NOT_FETCHED: &str =
    "the repository has files in Git LFS, which is not supported: they are pointers, without their contents";
const SUBMODULES_NOT_FETCHED: &str =
    "the repository has submodules, which are not supported: their folders are empty";

/// What the changes of an attempt are measured against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) commit: String,
    /// Branch that the clone is on.
    pub(crate) branch: String,
}

/// The repository of an attempt that is to be cloned.
#[derive(Debug)]
pub(crate) struct Cloning {
    source: GitSource,
    caches: Caches,
    cache: PathBuf,
    /// Commit that an earlier attempt has started from, whose work this one continues.
    base: Option<String>,
    branch: String,
    /// Home of git until a program of the attempt starts.
    home: PathBuf,
    credential: Option<Credential>,
    redactor: Redactor,
    received: watch::Sender<u64>,
    /// Commit to start from if the host has lost the one that the source names.
    instead: Option<String>,
}

impl Cloning {
    /// Returns that of an attempt, if its workspace has one. `state` is the directory of workers, whose disk keeps `min_free`
    /// bytes, `home` that of the attempt, `branch` that of the work.
    pub(crate) fn of(
        assign: &Assign,
        (state, min_free): (&Path, u64),
        home: PathBuf,
        credential: Option<Credential>,
        redactor: Redactor,
        branch: String,
    ) -> Option<Self> {
        let source = super::source(assign)?.clone();
        let caches = Caches::new(state, min_free);
        let cache = caches.path(assign, &source, credential.as_ref());
        let received = watch::Sender::default();
        Some(Self {
            source,
            caches,
            cache,
            base: None,
            branch,
            home,
            credential,
            redactor,
            received,
            instead: None,
        })
    }

    /// Clones this commit, wherever the reference of the task leads by now, as long as the host has it.
    pub(crate) fn starting_from(self, base: Option<String>) -> Self {
        Self { base: base.filter(|base| is_commit(base)), ..self }
    }

    /// Starts from another commit if the host does not have the one that is wanted.
    pub(crate) fn or_from(self, instead: Option<String>) -> Self {
        Self { instead, ..self }
    }

    /// Returns the bytes that the running fetch has received, if it takes long.
    pub(crate) fn received(&self) -> watch::Receiver<u64> {
        self.received.subscribe()
    }

    /// Returns the directory with the keys of hosts, unless the repository is on this machine: that one's programs would write it.
    pub(crate) fn host_keys(&self) -> Option<PathBuf> {
        local_path(&self.source.url).is_none().then(|| self.caches.host_keys())
    }

    /// Returns what the attempt may read: the objects that it borrows.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Clones into an empty directory. If it is `shared`, the clone borrows the objects of the cache, and must not outlive the
    /// loan.
    pub(crate) async fn into(
        &self,
        directory: &Path,
        shared: bool,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(Base, Option<Borrowed>), GitError> {
        if let Some(base) = &self.base {
            let source = GitSource { r#ref: base.clone(), ..self.source.clone() };
            match self.clone_of(&source, directory, shared, stop).await {
                Err(GitError::Failed { cause: Cause::Task, failure }) => {
                    tracing::warn!(
                        error = failure.message,
                        "the host does not have the commit of an earlier attempt"
                    );
                }
                cloned => return cloned,
            }
        }
        self.clone_of(&self.source, directory, shared, stop).await
    }

    async fn clone_of(
        &self,
        source: &GitSource,
        directory: &Path,
        shared: bool,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(Base, Option<Borrowed>), GitError> {
        let git = self.with_access(directory, &self.home)?;
        // A cache of some commits would not do for the next attempt.
        let borrowed = match source.depth {
            0 => Some(self.borrow(source, &git, stop).await?),
            _ => None,
        };
        let base = clone(source, borrowed.as_ref(), shared, &git, &self.branch, stop).await?;
        Ok((base, borrowed.filter(|_| shared)))
    }

    async fn borrow(
        &self,
        source: &GitSource,
        git: &Git,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Borrowed, GitError> {
        let borrowed = self.caches.borrow(self.cache.clone(), source, git, stop).await;
        let (Err(GitError::Failed { cause: Cause::Task, .. }), Some(commit)) = (&borrowed, &self.instead)
        else {
            return borrowed;
        };
        let source = GitSource { r#ref: commit.clone(), ..source.clone() };
        self.caches.borrow(self.cache.clone(), &source, git, stop).await
    }

    /// Copies what the `.worktreeinclude` of a user's own checkout names into a clone of it. Returns what was copied, for the log.
    pub(crate) async fn include(
        &self,
        workspace: &Path,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Option<String>, GitError> {
        let Some(checkout) = local_path(&self.source.url) else { return Ok(None) };
        let (to, ended) = (workspace.to_owned(), Arc::new(AtomicBool::new(false)));
        let seen = ended.clone();
        let mut copy = tokio::task::spawn_blocking(move || super::include::copy(&checkout, &to, &seen));
        let copied = tokio::select! {
            copied = &mut copy => copied,
            _ = stopped(stop) => {
                ended.store(true, Ordering::Relaxed);
                copy.await
            }
        };
        let git = self.git(workspace, workspace);
        let failed = |cause, error: &dyn std::fmt::Display| {
            git.failed(cause, format!("the files of {}: {error}", super::include::FILE))
        };
        copied.map_err(|error| failed(Cause::Machine, &error))?.map_err(|error| match error {
            IncludeError::Stopped => GitError::Stopped,
            // Each worker of this machine finds the same files.
            IncludeError::TooLarge(_) | IncludeError::Read(..) => match failed(Cause::Task, &error) {
                GitError::Failed { cause, failure } => {
                    let hint = HINT_INCLUDE.to_owned();
                    GitError::Failed { cause, failure: Failure { hint, ..failure } }
                }
                stopped => stopped,
            },
            IncludeError::Write(..) => failed(Cause::Machine, &error),
        })
    }

    /// Returns what is needed to push later, if the task asks for it. Asks the host for the task's branch. `cloned` is a clone that
    /// nothing has changed yet. `patience` is the time for which hosts that do not respond are tried again then.
    pub(crate) async fn delivery(
        &self,
        folder: PathBuf,
        jails: Option<Jails>,
        cloned: Option<&(Git, Base)>,
        mut request: Option<Request>,
        patience: Duration,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Option<Delivery>, GitError> {
        let Some(push) = &self.source.push else { return Ok(None) };
        if let Some((git, base)) = cloned {
            // Not after all the work.
            workflows::check(git, push, &base.commit, stop).await?;
        }
        let git = self.with_access(&self.home, &self.home)?;
        let reference = format!("refs/heads/{}", self.branch);
        let name = self.source.r#ref.as_str();
        let is_base = |name: &str| is_reference(name) && !is_commit(name) && !name.starts_with("rota/");
        let base = (request.as_ref().is_some_and(|request| !request.names_base()) && is_base(name))
            .then(|| format!("refs/heads/{name}"));
        let mut args = vec!["ls-remote", "--", &self.source.url, &reference];
        args.extend(base.as_deref());
        let found = git.run(&args, stop).await?;
        let at = |wanted: &str| {
            let mut lines = found.lines().filter_map(|line| line.split_once('\t'));
            lines.find(|(_, name)| *name == wanted).map(|(commit, _)| commit.to_owned())
        };
        let seen = at(&reference).unwrap_or_default();
        if let (Some(request), Some(base)) = (&mut request, &base)
            && at(base).is_some()
        {
            name.clone_into(&mut request.base);
        }
        let (source, branch) = (self.source.clone(), self.branch.clone());
        let (caches, cache) = (self.caches.clone(), self.cache.clone());
        // The attempt writes its home meanwhile.
        let git = Git { home: folder.clone(), ..git };
        Ok(Some(Delivery { source, caches, cache, git, folder, branch, seen, jails, request, patience }))
    }

    /// Returns how git is called in directories that no program of the attempt has written, with access to the host.
    fn with_access(&self, directory: &Path, home: &Path) -> Result<Git, GitError> {
        let git = self.git(directory, home);
        let known_hosts = self.caches.known_hosts().map_err(|error| {
            git.failed(Cause::Machine, format!("the directory with the keys of hosts: {error}"))
        })?;
        let (credential, received) = (self.credential.clone(), self.received.clone());
        let network = Some(Network { credential, known_hosts, received });
        // Programs of a repository on this machine may write into its home. Unlike other settings, git passes this one on to them.
        let environment = Environment([("GIT_CONFIG_GLOBAL".to_owned(), "/dev/null".to_owned())].into());
        Ok(Git { network, environment, ..git })
    }

    /// Returns what the changes of the task are measured against in a workspace that existed before.
    pub(crate) async fn base_of(
        &self,
        git: &Git,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Option<Base>, GitError> {
        base_of(git, &self.branch, stop).await
    }

    /// Returns how git is called in a clone, without access to the host.
    pub(crate) fn git(&self, directory: &Path, home: &Path) -> Git {
        Git {
            directory: directory.to_owned(),
            home: home.to_owned(),
            url: self.source.url.clone(),
            network: None,
            environment: Environment::default(),
            redactor: self.redactor.clone(),
        }
    }
}

/// Clones into the empty directory of `git`. With `borrowed`, from that cache; if `shared`, without copying its objects, so
/// that the clone must not outlive the loan. Otherwise from the host, with the commits that the task asks for.
async fn clone(
    source: &GitSource,
    borrowed: Option<&Borrowed>,
    shared: bool,
    git: &Git,
    branch: &str,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Base, GitError> {
    let local = Git { network: None, ..git.clone() };
    let initial = format!("--initial-branch={branch}");
    local.run(&["init", "--quiet", "--template=", &initial], stop).await?;
    let commit = match borrowed {
        Some(borrowed) => {
            if shared {
                let alternates = git.directory.join(".git/objects/info/alternates");
                let line = format!("{}\n", borrowed.path.join("objects").display());
                let written = tokio::fs::write(&alternates, line).await;
                written.map_err(|error| git.failed(Cause::Machine, error.to_string()))?;
            }
            from_cache(borrowed, &local, stop).await?
        }
        None => from_host(source, git, stop).await?,
    };
    // Only now: git would take the references for those of a remote that is fetched.
    local.run(&["remote", "add", "--", "origin", &source.url], stop).await?;
    if !source.sparse.is_empty() {
        let mut args = vec!["sparse-checkout", "set", "--cone", "--"];
        args.extend(source.sparse.iter().map(String::as_str));
        local.run(&args, stop).await?;
    }
    local.run(&["reset", "--quiet", "--hard", &commit], stop).await?;
    Ok(Base { commit, branch: branch.to_owned() })
}

async fn from_cache(
    borrowed: &Borrowed,
    git: &Git,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<String, GitError> {
    let cache = borrowed.path.to_string_lossy();
    let rules = ["+refs/remotes/origin/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
    let mut args = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", &cache];
    args.extend(rules);
    // Also where no branch has it.
    args.push(&borrowed.base);
    git.run(&args, stop).await?;
    Ok(borrowed.base.clone())
}

async fn from_host(
    source: &GitSource,
    git: &Git,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<String, GitError> {
    let depth = format!("--depth={}", source.depth.max(1));
    let name = source.r#ref.as_str();
    let wanted = if name.is_empty() { "HEAD" } else { name };
    if !name.is_empty() && !is_commit(name) && !is_reference(name) {
        return Err(git.failed(Cause::Task, format!("{name:?} is no name of a branch, a tag or a commit")));
    }
    git.run(&["fetch", "--quiet", "--no-tags", &depth, "--", &source.url, wanted], stop).await?;
    let local = Git { network: None, ..git.clone() };
    local.run(&["rev-parse", "--verify", "FETCH_HEAD^{commit}"], stop).await
}

/// Returns what a clone that nothing has changed yet is without: a code and a text for each.
pub(crate) async fn missing(
    git: &Git,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Vec<(&'static str, &'static str)>, GitError> {
    const LFS: &str = ":(attr:filter=lfs)";
    const SUBMODULES: &str = ":(top).gitmodules";
    let mut missing = Vec::new();
    // Most have neither, for which one call is enough.
    if git.run(&["ls-files", "--", LFS, SUBMODULES], stop).await?.is_empty() {
        return Ok(missing);
    }
    for (files, code, text) in [
        (LFS, "lfs_not_fetched", LFS_NOT_FETCHED),
        (SUBMODULES, "submodules_not_fetched", SUBMODULES_NOT_FETCHED),
    ] {
        if !git.run(&["ls-files", "--", files], stop).await?.is_empty() {
            missing.push((code, text));
        }
    }
    Ok(missing)
}

/// Reference of the commit from which a task has started in a workspace that attempts share.
pub(super) fn base_reference(branch: &str) -> String {
    format!("refs/rota/base/{branch}")
}

/// Returns what the changes of a task are measured against in a workspace that exists already. The first attempt of the task
/// notes it for later ones. None if there is no repository, or no commit yet.
async fn base_of(
    git: &Git,
    branch: &str,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Option<Base>, GitError> {
    let reference = base_reference(branch);
    let parse = async |name: &str, stop: &mut _| match git
        .run(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")], stop)
        .await
    {
        Ok(commit) => Ok(Some(commit)),
        Err(GitError::Failed { cause: Cause::Machine, failure }) => {
            Err(GitError::Failed { cause: Cause::Machine, failure })
        }
        Err(GitError::Stopped) => Err(GitError::Stopped),
        Err(GitError::Failed { .. }) => Ok(None),
    };
    let base = |commit| Some(Base { commit, branch: branch.to_owned() });
    if let Some(commit) = parse(&reference, stop).await? {
        return Ok(base(commit));
    }
    let Some(commit) = parse("HEAD", stop).await? else { return Ok(None) };
    git.run(&["update-ref", &reference, &commit], stop).await?;
    Ok(base(commit))
}
