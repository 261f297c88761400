//! Bare repositories that all attempts of a host borrow objects from: one per repository and credentials, fetched once.
//!
//! A cache is locked twice. Who borrows holds a shared lock as long as its clone exists: only a cache that nothing borrows from
//! is cleaned up or removed. Who fetches holds an exclusive lock meanwhile: concurrent fetches race on references. References
//! of the remote become remote-tracking references, as in any clone, so that pruning them touches nothing of an attempt.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rota_proto::v1::GitSource;
use rota_proto::worker::v1::Assign;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::checks::{is_commit, is_reference, local_path};
use super::credential::Credential;
use super::failure::{Cause, is_damage};
use super::leftovers::{clean_up, clear};
use super::run::{Git, GitError};
use crate::files::{Lock, last_use, locked, remove};
use crate::layout::{Sibling, State};
use crate::supervise::Stop;

/// Reference of the commit that the remote's default branch has.
const HEAD: &str = "refs/rota/head";
/// File in a cache that a fetch has filled.
pub(super) const FETCHED: &str = "rota";
/// References of the remote that every fetch updates.
const RULES: [&str; 2] = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];

/// A power cut must not leave empty objects and references, which is what git's defaults risk.
const DURABLY: [&str; 2] = ["-c", "core.fsync=all"];

/// The caches of a worker's host.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    state: PathBuf,
    /// Bytes of the disk that no clean-up takes.
    min_free: u64,
}

/// A cache that an attempt borrows from, as long as this lives.
#[derive(Debug)]
pub(crate) struct Borrowed {
    /// Where the bare repository is.
    pub(crate) path: PathBuf,
    /// Commit that the attempt starts from.
    pub(crate) base: String,
    _lock: File,
}

impl Caches {
    pub(crate) fn new(state: &Path, min_free: u64) -> Self {
        Self { state: state.to_owned(), min_free }
    }

    /// Returns the directory with the keys of hosts, which SSH writes for all attempts.
    pub(super) fn host_keys(&self) -> PathBuf {
        State(&self.state).git_home()
    }

    /// Creates that directory, and returns the file in it.
    pub(super) fn known_hosts(&self) -> std::io::Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.host_keys())?;
        Ok(State(&self.state).known_hosts())
    }

    /// Returns where the cache of an attempt's repository is.
    pub(crate) fn path(
        &self,
        assign: &Assign,
        source: &GitSource,
        credential: Option<&Credential>,
    ) -> PathBuf {
        let agent = format!("{}/{}", assign.namespace, assign.agent);
        let is_http = source.url.starts_with("http://") || source.url.starts_with("https://");
        let identity = match credential {
            Some(credential) => credential.identity(&agent),
            None if is_http || local_path(&source.url).is_some() => String::new(),
            // The worker's own key.
            None => format!("agent {agent}"),
        };
        let key = Sha256::digest(format!("{}\n{identity}", source.url));
        State(&self.state).repository(&assign.namespace, &format!("{key:x}"))
    }

    /// Fetches the repository of an attempt into its cache, unless that has the commit that is asked for.
    pub(crate) async fn borrow(
        &self,
        path: PathBuf,
        source: &GitSource,
        git: &Git,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Borrowed, GitError> {
        let wanted = Wanted::of(source).ok_or_else(|| {
            git.failed(Cause::Task, format!("{:?} is no name of a branch, a tag or a commit", source.r#ref))
        })?;
        let io = |error: std::io::Error| {
            git.failed(Cause::Machine, format!("the cache of the repository: {error}"))
        };
        let mut create = DirBuilder::new();
        create.recursive(true).mode(0o700);
        create.create(path.parent().unwrap_or(&path)).map_err(io)?;
        let use_file = Sibling(&path).lock();
        // Alone with the cache, or else with others that only read.
        let alone = File::options().create(true).truncate(false).write(true).open(&use_file).map_err(io)?;
        let is_alone = alone.try_lock().is_ok();
        let lock = match is_alone {
            true => alone,
            false => locked(&use_file, Lock::Shared, stop).await.map_err(io)?.ok_or(GitError::Stopped)?,
        };
        last_use::note(&lock);
        let fetching = locked(&Sibling(&path).fetching(), Lock::Exclusive, stop).await.map_err(io)?;
        let fetching = fetching.ok_or(GitError::Stopped)?;
        create.create(&path).map_err(io)?;
        // There while a fetch runs. A killed one leaves locks of its own, which would stop all later ones.
        let unfinished = Sibling(&path).unfinished_fetch();
        if unfinished.exists() {
            clear(&path).await.map_err(io)?;
        }
        File::create(&unfinished).map_err(io)?;
        let git = git.within(&path);
        let fetched = match fetch(&git, source, &wanted, stop).await {
            Err(GitError::Failed { failure, .. }) if is_alone && is_damage(&failure.message) => {
                tracing::warn!(reason = failure.message, "making the cache of a repository again");
                remove::in_background(&path, &State(&self.state).trash());
                create.create(&path).map_err(io)?;
                fetch(&git, source, &wanted, stop).await
            }
            fetched => fetched,
        };
        let base = match fetched {
            Ok(base) => base,
            Err(error) => {
                // What does not fit must not keep the disk full.
                if let Err(error) = clear(&path).await {
                    tracing::warn!(%error, "failed to remove what a fetch has left");
                }
                return Err(error);
            }
        };
        let is_clear = !is_alone || clean_up(&git, self.min_free, stop).await?;
        if is_alone {
            lock.lock_shared().map_err(io)?;
        }
        // Only now: a call that was killed has left its files.
        if is_clear {
            std::fs::remove_file(&unfinished).map_err(io)?;
        }
        drop(fetching);
        Ok(Borrowed { path, base, _lock: lock })
    }
}

/// What a task wants to start from.
enum Wanted {
    Default,
    Commit(String),
    /// A full reference, such as that of a pull request.
    Reference(String),
    /// A branch or a tag.
    Name(String),
}

impl Wanted {
    fn of(source: &GitSource) -> Option<Self> {
        let name = source.r#ref.clone();
        match name.as_str() {
            "" => Some(Self::Default),
            commit if is_commit(commit) => Some(Self::Commit(commit.to_ascii_lowercase())),
            other if !is_reference(other) => None,
            other if other.starts_with("refs/") => Some(Self::Reference(name)),
            _ => Some(Self::Name(name)),
        }
    }

    /// What has to be fetched besides branches and tags: the remote's reference, and that of the cache.
    fn rule(&self) -> Option<String> {
        match self {
            Self::Default => Some(format!("+HEAD:{HEAD}")),
            Self::Commit(commit) => Some(format!("+{commit}:refs/rota/commits/{commit}")),
            Self::Reference(name) => Some(format!("+{name}:refs/rota/{name}")),
            Self::Name(_) => None,
        }
    }

    /// Names in the cache under which it is looked for, in order.
    fn places(&self) -> Vec<String> {
        match self {
            Self::Default => vec![HEAD.to_owned()],
            Self::Commit(commit) => vec![commit.clone()],
            Self::Reference(name) => vec![format!("refs/rota/{name}")],
            Self::Name(name) => vec![format!("refs/remotes/origin/{name}"), format!("refs/tags/{name}")],
        }
    }
}

/// Updates a cache, and returns the commit that is wanted.
async fn fetch(
    git: &Git,
    source: &GitSource,
    wanted: &Wanted,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<String, GitError> {
    let local = Git { network: None, ..git.clone() };
    if !git.directory.join(FETCHED).exists() {
        local.run(&["init", "--quiet", "--bare", "--template="], stop).await?;
        local.run(&["config", "uploadpack.allowAnySHA1InWant", "true"], stop).await?;
    }
    if matches!(wanted, Wanted::Commit(_))
        && let Some(base) = find(&local, wanted, stop).await?
    {
        return Ok(base);
    }
    let rule = wanted.rule();
    let mut args = DURABLY.to_vec();
    args.extend(["fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--", &source.url]);
    args.extend(RULES);
    if !matches!(wanted, Wanted::Commit(_)) {
        args.extend(rule.as_deref());
    }
    git.run(&args, stop).await?;
    let fetched = File::create(git.directory.join(FETCHED));
    fetched.map_err(|error| git.failed(Cause::Machine, error.to_string()))?;
    if let Some(base) = find(&local, wanted, stop).await? {
        return Ok(base);
    }
    if let (Wanted::Commit(_), Some(rule)) = (wanted, &rule) {
        // Of no branch and no tag.
        let args = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", &source.url, rule];
        git.run(&[&DURABLY[..], &args].concat(), stop).await?;
        if let Some(base) = find(&local, wanted, stop).await? {
            return Ok(base);
        }
    }
    Err(git.failed(Cause::Task, format!("the repository has no branch or tag {:?}", source.r#ref)))
}

/// Returns the commit that is wanted, if the cache has it.
async fn find(
    git: &Git,
    wanted: &Wanted,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Option<String>, GitError> {
    for place in wanted.places() {
        match git.run(&["rev-parse", "--verify", "--quiet", &format!("{place}^{{commit}}")], stop).await {
            Ok(commit) => return Ok(Some(commit)),
            Err(GitError::Failed { cause: Cause::Machine, failure }) => {
                return Err(GitError::Failed { cause: Cause::Machine, failure });
            }
            Err(GitError::Stopped) => return Err(GitError::Stopped),
            Err(GitError::Failed { .. }) => {}
        }
    }
    Ok(None)
}
