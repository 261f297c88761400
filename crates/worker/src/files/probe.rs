//! Whether a directory takes files, found out by writing one: neither free space nor messages show it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

/// What is written: more than a file system may keep within its metadata.
const PROBE: [u8; 4096] = [0; 4096];
/// Time after which a file system counts as failed.
const LIMIT: Duration = Duration::from_secs(5);

/// Writes and removes a file. Errors: of the file system.
pub(crate) fn probe(directory: &Path) -> io::Result<()> {
    tempfile::tempfile_in(directory)?.write_all(&PROBE)
}

/// Like [`probe`], within a limited time.
pub(crate) async fn probe_in_time(directory: PathBuf) -> io::Result<()> {
    match timeout(LIMIT, tokio::task::spawn_blocking(move || probe(&directory))).await {
        Ok(probed) => probed.map_err(io::Error::other)?,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
