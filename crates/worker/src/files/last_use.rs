//! When a workspace was last used: a time in a hidden file next to it. Times of the file system do not do: programs of
//! attempts may set them for any file of their user, whatever their walls.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rota_telemetry::clock;

use crate::layout::Sibling;

/// Notes that a workspace is used now.
pub(crate) fn note(mut file: &File) {
    let now = clock::unix_micros().to_string();
    let written = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(now.as_bytes()));
    if let Err(error) = written {
        // It would only live shorter.
        tracing::warn!(%error, "failed to note the use of a workspace");
    }
}

/// Notes that a workspace without a lock is used now.
pub(crate) fn note_unlocked(workspace: &Path) {
    match File::create(Sibling(workspace).lock()) {
        Ok(file) => note(&file),
        Err(error) => tracing::warn!(%error, "failed to note the use of a workspace"),
    }
}

/// Returns the time of the last use. Workspaces of earlier versions have only those of the file system.
pub(crate) fn of(workspace: &Path) -> Option<SystemTime> {
    let file = Sibling(workspace).lock();
    let noted = fs::read_to_string(&file).ok().and_then(|text| text.parse().ok());
    if let Some(micros) = noted {
        return UNIX_EPOCH.checked_add(Duration::from_micros(micros));
    }
    let shows = [file, workspace.to_owned()].into_iter().find(|path| path.exists())?;
    shows.metadata().ok()?.modified().ok()
}
