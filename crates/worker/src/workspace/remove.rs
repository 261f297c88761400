//! Removal of directories, including those that a program has made read-only.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Removes a directory with its contents, if it exists. A failure is only logged: it must not change an outcome.
pub(super) async fn all(path: PathBuf) {
    let shown = path.clone();
    let removed = tokio::task::spawn_blocking(move || match fs::remove_dir_all(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open(&path)?;
            fs::remove_dir_all(&path)
        }
        result => result,
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(path = %shown.display(), %error, "failed to remove a directory");
    }
}

/// Makes every directory writable; package caches are often not. Does not follow links.
fn open(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open(&entry.path())?;
        }
    }
    Ok(())
}
