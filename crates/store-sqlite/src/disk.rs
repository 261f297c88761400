//! Room of a database on its volume: what is free, and a reserve with which a full volume still takes what frees space.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use tokio::time::Instant;

/// Largest size of the reserve: enough for the log of a commit that removes records, and to start.
const MAX_RESERVE: u64 = 16 * 1024 * 1024;
/// Room that the volume must have, as a multiple of the reserve, for it to be made.
const ROOM_FACTOR: u64 = 4;
/// Interval at which a reserve that was used is made again, if there is room.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Space of a volume in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) free: u64,
    pub(crate) size: u64,
}

/// Returns the space of the volume with a path, unless the file system reports none at all.
pub(crate) fn volume(path: &Path) -> Option<Volume> {
    match statvfs(path) {
        Ok(disk) if disk.blocks() > 0 => Some(Volume {
            free: disk.blocks_available().saturating_mul(disk.fragment_size()),
            size: disk.blocks().saturating_mul(disk.fragment_size()),
        }),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "failed to read the free disk space");
            None
        }
    }
}

/// Returns the free bytes of the volume with a path, unless the file system reports none at all.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    volume(path).map(|volume| volume.free)
}

/// Path of a file that belongs to a database.
pub(crate) fn sibling(database: &Path, extension: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(extension);
    PathBuf::from(path)
}

/// File that takes space until it is needed: `<database>.reserve`.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    exists: bool,
    tried: Option<Instant>,
}

impl Reserve {
    pub(crate) fn of(database: &Path) -> Self {
        let path = sibling(database, ".reserve");
        Self { exists: path.exists(), path, tried: None }
    }

    /// Returns the space that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Gives the space back. Returns whether there was any.
    pub(crate) fn release(&mut self) -> bool {
        let removed = self.exists && fs::remove_file(&self.path).is_ok();
        self.exists = false;
        self.tried = Some(Instant::now());
        removed
    }

    /// Takes the space, if it is not taken and there is room. Tries again at intervals only.
    pub(crate) fn ensure(&mut self) {
        if self.exists || self.tried.is_some_and(|at| at.elapsed() < RETRY_INTERVAL) {
            return;
        }
        self.tried = Some(Instant::now());
        let Some(volume) = self.path.parent().and_then(volume) else { return };
        let size = MAX_RESERVE.min(volume.size / 50);
        if volume.free >= size * ROOM_FACTOR {
            self.take(size);
        }
    }

    /// Takes so many bytes, if the volume has them.
    pub(crate) fn take(&mut self, size: u64) {
        match self.allocate(size) {
            Ok(()) => self.exists = true,
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                tracing::warn!(%error, "failed to reserve disk space");
            }
        }
    }

    /// Creates the file with its blocks: a file with holes would reserve nothing.
    fn allocate(&self, size: u64) -> std::io::Result<()> {
        let file = File::create(&self.path)?;
        posix_fallocate(&file, 0, i64::try_from(size).unwrap_or(i64::MAX))?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn free_space_of_a_volume_is_known() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
        assert_eq!(free_bytes(Path::new("/proc")), None);
    }

    #[test]
    fn reserve_takes_blocks_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("rota.db");
        let mut reserve = Reserve::of(&database);
        assert!(!reserve.release(), "there is none yet");
        reserve.tried = None;
        reserve.ensure();
        let data = fs::metadata(sibling(&database, ".reserve")).unwrap();
        assert!(data.blocks() * 512 >= data.len() && data.len() > 0, "{data:?}");
        let mut again = Reserve::of(&database);
        assert!(again.release() && !again.release());
        again.ensure();
        assert!(!sibling(&database, ".reserve").exists(), "it is made again after a while");
    }
}
