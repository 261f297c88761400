//! Removal of what no process uses: directories of workers that were killed and never came back, and workspaces that were kept
//! and not used for long.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use rota_telemetry::clock;

use super::{left, setup_cache};
use crate::files::{last_use, remove};
use crate::git;
use crate::layout::{Sibling, State, UNFINISHED};

/// A workspace that was kept, and that no attempt uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    pub path: PathBuf,
    /// When an attempt last used it.
    pub last_used: SystemTime,
}

/// Takes the lock that shows that a worker's process lives. The file names the one that its supervisors lock, and is empty where that
/// cannot be written: the lock counts. None if another process of that name has it.
pub(super) fn hold(attempts: &Path, supervisors: &Path) -> io::Result<Option<File>> {
    let path = owner_file(attempts).ok_or(io::ErrorKind::InvalidFilename)?;
    let mut file = open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Another worker may have removed it between the two.
    let (held, found) = (file.metadata()?, path.metadata().ok());
    if found.is_none_or(|found| (held.dev(), held.ino()) != (found.dev(), found.ino())) {
        return Ok(None);
    }
    let written = file.set_len(0).and_then(|()| file.write_all(supervisors.as_os_str().as_bytes()));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "failed to write the owner of a directory, which is locked");
        // A part of a path would name another file.
        let _ = file.set_len(0);
    }
    Ok(Some(file))
}

/// Whether a file system has no locks. Other errors may pass.
pub(super) fn has_no_locks(error: &io::Error) -> bool {
    // `ENOTSUP` is the same number.
    const UNSUPPORTED: [Errno; 2] = [Errno::EOPNOTSUPP, Errno::ENOLCK];
    error.raw_os_error().is_some_and(|code| UNSUPPORTED.contains(&Errno::from_raw(code)))
}

/// Moves the directories of workers away whose processes have ended, and those of their programs too.
pub(super) fn abandoned(running: &Path, trash: &Path) {
    for namespace in entries(running) {
        for attempts in entries(&namespace.path()).filter(|entry| !is_hidden(&entry.file_name())) {
            let attempts = attempts.path();
            // Without that file, the directory is of an earlier version, whose worker may live.
            let Some(owner) = owner_file(&attempts).filter(|file| file.exists()) else { continue };
            let lock = open(&owner).ok().filter(|lock| lock.try_lock().is_ok());
            let Some(mut lock) = lock else { continue };
            let mut supervisors = Vec::new();
            if lock.read_to_end(&mut supervisors).is_err() {
                continue;
            }
            // The worker could not write it: whether its programs run is unknown.
            if supervisors.is_empty() {
                continue;
            }
            let supervisors = PathBuf::from(std::ffi::OsString::from_vec(supervisors));
            if File::open(&supervisors).is_ok_and(|file| file.try_lock().is_err()) {
                continue;
            }
            if left::has_left(&attempts) {
                left::remove_others(&attempts, trash);
                continue;
            }
            tracing::info!(directory = %attempts.display(), "removing what a worker has left behind");
            remove::in_background(&attempts, trash);
            let _ = fs::remove_file(&owner);
        }
    }
}

/// Returns the workspaces under a state directory that were kept, that no attempt uses, and that were last used before a time.
pub fn unused(state: &Path, before: SystemTime) -> Vec<Unused> {
    let kept = namespaces(&State(state).all_kept()).chain(unfinished_clones(state));
    let kept = kept.filter(|path| is_free(&lock_of(path)));
    let running: Vec<_> = entries(&State(state).running())
        .flat_map(|entry| entries(&entry.path()))
        .map(|entry| entry.path())
        .collect();
    let in_use = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        running.iter().any(|attempts| attempts.join(name).exists())
    };
    let caches = namespaces(&State(state).all_repositories()).chain(namespaces(&State(state).all_setup()));
    let caches = caches.filter(|path| is_free(&Sibling(path).lock()));
    let fresh = namespaces(&State(state).all_fresh()).filter(|path| !in_use(path));
    let used_before = |path: PathBuf| {
        let last_used = last_use::of(&workspace_of(&path))?;
        (last_used < before).then_some(Unused { path, last_used })
    };
    kept.chain(caches).chain(fresh).filter_map(used_before).collect()
}

/// Removes unused workspaces with what belongs to them. Returns those that were removed.
pub fn remove_unused(state: &Path, before: SystemTime) -> Vec<Unused> {
    let remove = |found: &Unused| remove(&found.path, state);
    unused(state, before).into_iter().filter(remove).collect()
}

/// Removes a workspace with what belongs to it, unless an attempt uses it. Returns whether it did.
fn remove(path: &Path, state: &Path) -> bool {
    // Held meanwhile: an attempt may be about to use it.
    let lock = lock_of(path);
    let held = lock.exists().then(|| open(&lock).ok()).flatten();
    if held.as_ref().is_some_and(|file| file.try_lock().is_err()) {
        return false;
    }
    let config = Sibling(path).config();
    for directory in config.iter().map(PathBuf::as_path).chain([path]) {
        if let Err(error) = remove::whole(directory, state) {
            tracing::warn!(path = %directory.display(), %error, "failed to remove a directory");
            return false;
        }
    }
    // That of a kept workspace stays: an attempt may wait for it.
    if path.starts_with(State(state).all_fresh()) {
        let _ = fs::remove_file(lock);
    }
    true
}

/// Removes what killed workers have not completed: clones for kept workspaces, set-up caches, and what git was writing. Blocks.
pub(crate) fn remove_unfinished(state: &Path) {
    git::clear_unfinished(state);
    let clones = unfinished_clones(state).filter(|path| {
        // Programs of the worker may still run.
        is_free(&Sibling(&workspace_of(path)).supervisors())
    });
    let caches = namespaces(&State(state).all_setup()).filter(|path| !setup_cache::is_filled(path));
    for path in clones.chain(caches) {
        if remove(&path, state) {
            tracing::info!(path = %path.display(), "removed what a killed worker has not completed");
        }
    }
}

fn unfinished_clones(state: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let namespaces = entries(&State(state).all_kept());
    let all = namespaces.flat_map(|namespace| entries(&namespace.path())).map(|entry| entry.path());
    all.filter(|path| workspace_of(path) != *path)
}

/// Returns the workspace for which a clone is made; the path itself of all else.
fn workspace_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(UNFINISHED)?.strip_suffix('.'));
    name.map_or_else(|| path.to_owned(), |name| path.with_file_name(name))
}

fn lock_of(path: &Path) -> PathBuf {
    Sibling(&workspace_of(path)).lock()
}

/// Returns the time before which a workspace counts as unused.
pub(super) fn limit(keep: Duration) -> Option<SystemTime> {
    clock::now().checked_sub(keep)
}

/// Returns the directories of all namespaces in a folder that has one for each.
fn namespaces(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(folder)
        .flat_map(|namespace| entries(&namespace.path()))
        .filter(|entry| !is_hidden(&entry.file_name()))
        .map(|entry| entry.path())
}

/// Returns the directories in a directory; links are not followed.
pub(super) fn entries(path: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    let all = fs::read_dir(path).into_iter().flatten().flatten();
    all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.')
}

fn owner_file(attempts: &Path) -> Option<PathBuf> {
    attempts.file_name()?;
    Some(Sibling(attempts).owner())
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path)
}

fn is_free(lock: &Path) -> bool {
    File::open(lock).map_or(true, |file| file.try_lock().is_ok())
}
