//! Removal of directories, including those that a program has made read-only.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, Permissions, PermissionsExt};
use rota_telemetry::{OnExit, spawn};

use crate::layout::State;
use crate::program_dir;

/// Removes a directory with its contents, if it exists. A failure is only logged: it must not change an outcome.
pub(crate) async fn all(path: PathBuf) {
    let shown = path.clone();
    let removed = tokio::task::spawn_blocking(move || now(&path));
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(path = %shown.display(), %error, "failed to remove a directory");
    }
}

/// Removes a directory with its contents, if it exists. Blocks.
pub(crate) fn now(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
                open(&program_dir::open(folder)?, Path::new(name))?;
            }
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

/// Removes a directory of a state directory, if it exists. Blocks. All or nothing: what remains when this process ends meanwhile is
/// where nothing is looked for.
pub(crate) fn whole(path: &Path, state: &Path) -> io::Result<()> {
    let trash = State(state).trash();
    fs::create_dir_all(&trash)?;
    let discarded = trash.join(uuid::Uuid::new_v4().simple().to_string());
    match fs::rename(path, &discarded) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // It is on another file system.
        Err(_) => now(path),
        Ok(()) => now(&discarded),
    }
}

/// Moves a directory, if it exists, into `trash`, and removes it there in the background.
pub(crate) fn in_background(path: &Path, trash: &Path) {
    let discarded = trash.join(uuid::Uuid::new_v4().simple().to_string());
    let path = match fs::rename(path, &discarded) {
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Ok(()) => discarded,
        // It is on another file system.
        Err(_) => path.to_owned(),
    };
    spawn("remove directory", OnExit::Done, all(path));
}

/// Removes what an earlier process has left in `trash`.
pub(crate) fn empty_in_background(trash: PathBuf) {
    spawn("empty trash", OnExit::Done, async move {
        let Ok(mut entries) = tokio::fs::read_dir(&trash).await else { return };
        while let Ok(Some(entry)) = entries.next_entry().await {
            all(entry.path()).await;
        }
    });
}

/// Makes every directory writable; package caches are often not. Does not follow links.
fn open(folder: &Dir, name: &Path) -> io::Result<()> {
    folder.set_permissions(name, Permissions::from_mode(0o700))?;
    let inner = folder.open_dir(name)?;
    for entry in inner.entries()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open(&inner, Path::new(&entry.file_name()))?;
        }
    }
    Ok(())
}
