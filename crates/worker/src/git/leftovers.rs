//! What calls of git leave in the caches of repositories: packs that fetches have added up, and files of calls that were killed or
//! had no room. Packs the first, and removes the others before they fill the disk for good.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::cache::FETCHED;
use super::run::{Git, GitError};
use crate::files::remove;
use crate::layout::{Sibling, State};
use crate::supervise::Stop;

/// Depth of folders in a repository, at most.
const MAX_DEPTH: usize = 64;

/// Packs the objects of a cache that nothing borrows from, if many fetches have left many and the disk has room for a copy of its
/// objects besides `min_free` bytes. Returns whether nothing unfinished is left.
pub(super) async fn clean_up(
    git: &Git,
    min_free: u64,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<bool, GitError> {
    if !has_room(&git.directory, min_free).unwrap_or_default() {
        tracing::debug!(cache = %git.directory.display(), "no room to clean up the cache of a repository");
        return Ok(true);
    }
    let local = Git { network: None, ..git.clone() };
    // Git's own default limits, which all other calls switch off.
    let args = ["-c", "gc.auto=6700", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet"];
    let Err(error) = local.run(&args, stop).await else { return Ok(true) };
    // A copy that is not complete is as large as the packs.
    let is_clear = clear(&git.directory).await;
    if let Err(error) = &is_clear {
        tracing::warn!(%error, "failed to remove what a clean-up has left");
    }
    match error {
        GitError::Stopped => Err(GitError::Stopped),
        GitError::Failed { failure, .. } => {
            tracing::warn!(reason = failure.message, "failed to clean up the cache of a repository");
            Ok(is_clear.is_ok())
        }
    }
}

/// Whether the disk of a cache has room for another copy of its objects, of which those without a pack are put into one, too.
fn has_room(cache: &Path, min_free: u64) -> io::Result<bool> {
    let needed = size(&cache.join("objects"))?.saturating_add(min_free);
    let space = nix::sys::statvfs::statvfs(cache)?;
    Ok(space.blocks_available().saturating_mul(space.fragment_size()) >= needed)
}

fn size(folder: &Path) -> io::Result<u64> {
    let mut sum: u64 = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        let bytes = if found.is_dir() { size(&entry.path())? } else { found.len() };
        sum = sum.saturating_add(bytes);
    }
    Ok(sum)
}

/// Removes what a call that was killed or has failed has left of a cache: all of it, if no fetch has succeeded before.
pub(super) async fn clear(cache: &Path) -> io::Result<()> {
    let cache = cache.to_owned();
    tokio::task::spawn_blocking(move || clear_now(&cache)).await.map_err(io::Error::other).flatten()
}

fn clear_now(cache: &Path) -> io::Result<()> {
    if !cache.join(FETCHED).exists() {
        // Nothing borrows from it.
        remove::now(cache)?;
        return DirBuilder::new().mode(0o700).create(cache);
    }
    remove_leftovers(cache, 0, false)
}

/// Does so in all caches of a state directory that a killed worker was fetching into. Blocks.
pub(crate) fn clear_unfinished(state: &Path) {
    let folders = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let caches = folders(State(state).all_repositories()).flat_map(|namespace| folders(namespace.path()));
    for cache in caches.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let cache = cache.path();
        let marker = Sibling(&cache).unfinished_fetch();
        let fetching = File::options().write(true).open(Sibling(&cache).fetching());
        let Ok(fetching) = fetching.as_ref().map(File::try_lock) else { continue };
        if fetching.is_err() || !marker.exists() {
            continue;
        }
        match clear_now(&cache).and_then(|()| std::fs::remove_file(marker)) {
            Ok(()) => tracing::info!(cache = %cache.display(), "removed what a killed call of git has left"),
            Err(error) => tracing::warn!(cache = %cache.display(), %error, "failed to clear a cache"),
        }
    }
}

/// Removes locks, and what a call of git was writing, from a repository. Outside of its objects, a reference may have the name of
/// such a file.
fn remove_leftovers(folder: &Path, depth: usize, is_object: bool) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if depth < MAX_DEPTH {
                let are_objects = is_object || depth == 0 && name == "objects";
                remove_leftovers(&entry.path(), depth + 1, are_objects)?;
            }
        } else if name.ends_with(".lock")
            || is_object && (name.starts_with("tmp_") || name.starts_with(".tmp-"))
            // Such as `packed-refs.new`.
            || depth == 0 && name.ends_with(".new")
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_killed_calls_are_removed() {
        let cache = tempfile::tempdir().unwrap();
        let at = |name: &str| cache.path().join(name);
        std::fs::create_dir_all(at("refs/remotes/origin")).unwrap();
        std::fs::create_dir_all(at("objects/pack")).unwrap();
        let stale = [
            "config.lock",
            "packed-refs.lock",
            "packed-refs.new",
            "refs/remotes/origin/main.lock",
            "objects/pack/tmp_pack_x",
            "objects/pack/.tmp-1-pack-2",
        ];
        let kept = [
            "config",
            "packed-refs",
            "refs/remotes/origin/main",
            "refs/remotes/origin/my.new",
            "refs/remotes/origin/tmp_fix",
            "objects/pack/pack-1.pack",
        ];
        stale.iter().chain(&kept).for_each(|name| std::fs::write(at(name), "").unwrap());
        remove_leftovers(cache.path(), 0, false).unwrap();
        assert!(stale.iter().all(|name| !at(name).exists()));
        assert!(kept.iter().all(|name| at(name).exists()));
    }

    #[test]
    fn caches_of_killed_fetches_are_cleared() {
        let state = tempfile::tempdir().unwrap();
        let folder = State(state.path()).all_repositories().join("default");
        let at = |name: &str, file: &str| folder.join(name).join(file);
        for name in ["killed", "first", "fetching", "finished"] {
            std::fs::create_dir_all(at(name, "objects/pack")).unwrap();
            std::fs::write(at(name, "objects/pack/tmp_pack_x"), "").unwrap();
            std::fs::write(at(name, "config"), "").unwrap();
            std::fs::write(Sibling(&folder.join(name)).fetching(), "").unwrap();
        }
        for name in ["killed", "fetching", "finished"] {
            std::fs::write(at(name, FETCHED), "").unwrap();
        }
        for name in ["killed", "first", "fetching"] {
            std::fs::write(Sibling(&folder.join(name)).unfinished_fetch(), "").unwrap();
        }
        let lock = File::open(Sibling(&folder.join("fetching")).fetching()).unwrap();
        lock.try_lock().unwrap();
        clear_unfinished(state.path());
        let left = |name: &str| at(name, "objects/pack/tmp_pack_x").exists();
        assert_eq!(
            (left("killed"), left("first"), left("fetching"), left("finished")),
            (false, false, true, true)
        );
        assert!(at("killed", "config").exists() && !at("first", "config").exists());
        assert!(!Sibling(&folder.join("killed")).unfinished_fetch().exists());
    }

    #[test]
    fn clean_up_needs_room_for_a_copy() {
        let cache = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(cache.path().join("objects/pack")).unwrap();
        assert!(has_room(cache.path(), 0).unwrap());
        assert!(!has_room(cache.path(), u64::MAX).unwrap());
        // As large as no disk, without its blocks.
        for name in ["pack/pack-1.pack", "ab/cdef"] {
            let path = cache.path().join("objects").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(&path).unwrap().set_len(1 << 40).unwrap();
            assert!(!has_room(cache.path(), 0).unwrap(), "{name}");
            std::fs::remove_file(path).unwrap();
        }
    }
}
