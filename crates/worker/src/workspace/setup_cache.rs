//! Caches of what the set-up of an agent makes: `setup/{namespace}/{agent}.{key}`, filled once on a machine by the agent's
//! commands, and used by its attempts. A file next to a filled one shows that it is. Knows neither commands nor walls.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use prost::Message;
use rota_proto::v1::SetupCache as Wanted;
use rota_proto::worker::v1::Assign;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::begun::Begun;
use super::{PrepareError, Root, checked};
use crate::files::{Lock, last_use, locked, remove};
use crate::layout::{Sibling, State};
use crate::supervise::Stop;

/// Bytes and files of one cache.
const MAX_BYTES: u64 = 8 << 30;
const MAX_FILES: u64 = 1_000_000;
/// Filled caches that an agent keeps on a machine.
const MAX_CACHES: usize = 4;
/// Hexadecimal digits of the key of a cache.
const KEY_DIGITS: usize = 32;
/// Bytes of a key file that count.
const MAX_KEY_FILE: u64 = 64 << 20;

/// A cache that no other attempt changes or removes.
#[derive(Debug)]
pub(crate) struct SetupCache {
    pub(crate) folder: PathBuf,
    /// Whether it is complete. Otherwise it is empty, and its caller's to fill.
    pub(crate) filled: bool,
    /// Until it is filled. Ends before the lock does.
    begun: Option<Begun>,
    /// Shared if it is filled.
    lock: File,
}

/// Error of a cache that was filled with too much.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("the setup cache has more than {MAX_BYTES} bytes or {MAX_FILES} files")]
    TooLarge,
    #[error("failed to store the setup cache: {0}")]
    Io(#[from] io::Error),
}

impl Root {
    /// Returns the cache of an attempt's agent for the present key files of its workspace. Waits while another attempt fills it.
    pub(crate) async fn setup_cache(
        &self,
        assign: &Assign,
        wanted: &Wanted,
        workspace: &Path,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<SetupCache, PrepareError> {
        let folder = State(&self.state).setup(checked(&assign.namespace)?);
        tokio::fs::create_dir_all(&folder).await?;
        let git = assign.spec.as_ref().and_then(|spec| spec.workspace.as_ref()?.git.as_ref());
        let (wanted, workspace) = (wanted.clone(), workspace.to_owned());
        let url = git.map(|git| git.url.clone()).unwrap_or_default();
        let key = tokio::task::spawn_blocking(move || key(&wanted, &url, &workspace)).await;
        let key = key.map_err(io::Error::other)??;
        let folder = folder.join(format!("{}.{key}", checked(&assign.agent)?));
        let path = Sibling(&folder).lock();
        loop {
            let lock = locked(&path, Lock::Shared, stop).await?.ok_or(PrepareError::Stopped)?;
            if is_filled(&folder) {
                last_use::note(&lock);
                return Ok(SetupCache { folder, filled: true, begun: None, lock });
            }
            drop(lock);
            let lock = locked(&path, Lock::Exclusive, stop).await?.ok_or(PrepareError::Stopped)?;
            // Otherwise another attempt has filled it meanwhile.
            if !is_filled(&folder) {
                last_use::note(&lock);
                let _ = tokio::fs::remove_file(Sibling(&folder).filled()).await;
                remove::all(folder.clone()).await;
                tokio::fs::create_dir(&folder).await?;
                let begun = Some(Begun::new(&folder, &self.trash));
                return Ok(SetupCache { folder, filled: false, begun, lock });
            }
        }
    }
}

impl SetupCache {
    /// Makes the cache, which was filled, one for all attempts of the agent, and removes its oldest ones.
    pub(crate) async fn complete(mut self) -> Result<Self, Unusable> {
        let completed = tokio::task::spawn_blocking(move || {
            measure(&self.folder, &mut (0, 0), (MAX_BYTES, MAX_FILES))?;
            File::create(Sibling(&self.folder).filled())?.sync_all()?;
            self.begun.take().into_iter().for_each(Begun::complete);
            // Others may use it from now on. One that gets the lock first finds that it is filled, and gives it back.
            self.lock.lock_shared()?;
            remove_old(&self.folder);
            self.filled = true;
            Ok(self)
        });
        completed.await.map_err(|error| Unusable::Io(io::Error::other(error)))?
    }
}

pub(super) fn is_filled(folder: &Path) -> bool {
    Sibling(folder).filled().exists() && folder.is_dir()
}

/// Returns what a cache depends on: the commands that fill it, the repository, and the content of the key files.
fn key(wanted: &Wanted, url: &str, workspace: &Path) -> io::Result<String> {
    let mut all = Sha256::new();
    for part in [wanted.encode_to_vec().as_slice(), url.as_bytes()] {
        all.update(Sha256::digest(part));
    }
    for name in &wanted.key_files {
        all.update(digest(workspace, name)?);
    }
    let mut key = hex::encode(all.finalize());
    key.truncate(KEY_DIGITS);
    Ok(key)
}

/// Returns the digest of a file of the workspace. One that is not there, or leads out of it, counts as missing.
fn digest(workspace: &Path, name: &str) -> io::Result<[u8; 32]> {
    let folder = File::open(workspace)?;
    // A pipe must not block.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let Ok(file) = openat2(&folder, name, how).map(File::from) else { return Ok([0; 32]) };
    if !file.metadata()?.is_file() {
        return Ok([0; 32]);
    }
    let mut hash = Sha256::new();
    io::copy(&mut file.take(MAX_KEY_FILE), &mut hash)?;
    Ok(hash.finalize().into())
}

/// Adds up the bytes and files below a directory, up to a limit.
fn measure(folder: &Path, sum: &mut (u64, u64), most: (u64, u64)) -> Result<(), Unusable> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        sum.0 = sum.0.saturating_add(found.len().max(found.blocks().saturating_mul(512)));
        sum.1 += 1;
        if sum.0 > most.0 || sum.1 > most.1 {
            return Err(Unusable::TooLarge);
        }
        if found.is_dir() {
            measure(&entry.path(), sum, most)?;
        }
    }
    Ok(())
}

/// Removes all but the caches of the same agent that were used last, as far as no attempt uses them.
fn remove_old(newest: &Path) {
    let agent_of = |path: &Path| Some(path.file_name()?.to_str()?.rsplit_once('.')?.0.to_owned());
    let Some(folder) = newest.parent() else { return };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut others: Vec<_> = entries
        .filter(|path| path != newest && path.is_dir() && agent_of(path) == agent_of(newest))
        .map(|path| (last_use::of(&path), path))
        .collect();
    others.sort_unstable();
    let surplus = others.len().saturating_sub(MAX_CACHES - 1);
    for (_, path) in others.into_iter().take(surplus) {
        let held = File::open(Sibling(&path).lock()).ok();
        let free = held.as_ref().is_none_or(|lock| lock.try_lock().is_ok());
        let state = folder.parent().and_then(Path::parent).filter(|_| free);
        if let Some(state) = state
            && let Err(error) = remove::whole(&path, state)
        {
            tracing::warn!(path = %path.display(), %error, "failed to remove a setup cache");
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_telemetry::clock;

    use super::*;

    struct Place {
        root: Root,
        workspace: tempfile::TempDir,
        state: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let (state, workspace) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
            Self { root, workspace, state }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.workspace.path().join(name), text).unwrap();
        }

        async fn open(&self, namespace: &str, agent: &str) -> SetupCache {
            let assign = Assign { namespace: namespace.into(), agent: agent.into(), ..Assign::default() };
            let wanted = Wanted { key_files: vec!["lock".to_owned()], commands: Vec::new() };
            let (_stop, mut stop) = watch::channel(None);
            self.root.setup_cache(&assign, &wanted, self.workspace.path(), &mut stop).await.unwrap()
        }

        async fn fill(&self, namespace: &str, agent: &str) -> SetupCache {
            let cache = self.open(namespace, agent).await;
            assert!(!cache.filled && std::fs::read_dir(&cache.folder).unwrap().next().is_none());
            std::fs::write(cache.folder.join("made"), "x").unwrap();
            cache.complete().await.unwrap()
        }
    }

    #[tokio::test]
    async fn only_filled_caches_of_the_same_key_are_used() {
        let place = Place::new();
        place.write("lock", "one");
        // An attempt that fails, or is killed, leaves none.
        std::fs::write(place.open("default", "coder").await.folder.join("half"), "x").unwrap();
        let first = place.fill("default", "coder").await;
        let again = place.open("default", "coder").await;
        assert!(again.filled && again.folder == first.folder && again.folder.join("made").exists());
        for (namespace, agent) in [("default", "tester"), ("other", "coder")] {
            assert!(!place.open(namespace, agent).await.filled, "{namespace}/{agent}");
        }
        place.write("lock", "two");
        assert!(!place.open("default", "coder").await.filled);
        // What a link leads to elsewhere is no content of the workspace.
        std::fs::remove_file(place.workspace.path().join("lock")).unwrap();
        let missing = place.fill("default", "coder").await;
        std::os::unix::fs::symlink("/etc/passwd", place.workspace.path().join("lock")).unwrap();
        assert_eq!(place.open("default", "coder").await.folder, missing.folder);
    }

    /// Its commands fail, or fill it with too much.
    #[tokio::test]
    async fn caches_that_are_not_filled_leave_nothing() {
        let place = Place::new();
        place.write("lock", "one");
        let begun = place.open("default", "coder").await;
        let folder = begun.folder.clone();
        std::fs::write(folder.join("half"), "x").unwrap();
        drop(begun);
        assert!(!folder.exists());
        let begun = place.open("default", "coder").await;
        File::create(folder.join("large")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(begun.complete().await, Err(Unusable::TooLarge)));
        assert!(!folder.exists());
        // That of a killed worker.
        std::fs::create_dir(&folder).unwrap();
        let filled = place.fill("default", "tester").await.folder;
        super::super::remove_unfinished(place.state.path());
        assert!(!folder.exists() && filled.exists());
    }

    #[tokio::test]
    async fn old_caches_are_removed_unless_they_are_used() {
        let place = Place::new();
        place.write("lock", "used");
        let used = place.fill("default", "coder").await;
        for number in 0..MAX_CACHES + 2 {
            place.write("lock", &number.to_string());
            drop(place.fill("default", "coder").await);
        }
        let left = || super::super::unused(place.state.path(), clock::now()).len();
        assert!(used.folder.exists());
        assert_eq!(left(), MAX_CACHES);
        drop(used);
        let all = left();
        assert_eq!(all, MAX_CACHES + 1);
        assert_eq!(super::super::remove_unused(place.state.path(), clock::now()).len(), all);
    }

    #[test]
    fn large_caches_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/file"), vec![0; 4096]).unwrap();
        assert!(measure(folder.path(), &mut (0, 0), (1 << 20, 2)).is_ok());
        for most in [(1 << 20, 1), (4096, 2)] {
            assert!(matches!(measure(folder.path(), &mut (0, 0), most), Err(Unusable::TooLarge)));
        }
    }
}
