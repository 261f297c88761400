//! Durable position of a receiver: the revision up to which everything was delivered, in a file of its own. A position that is
//! too old repeats notifications, and never loses one. A file that cannot be read as one begins with the next commit.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rota_store::Snapshot;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::receivers::{NotificationsError, Receiver};

const EXTENSION: &str = "cursor";

/// File with the position of one receiver.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    path: PathBuf,
    store: Uuid,
}

#[derive(Debug, Serialize, Deserialize)]
struct Position {
    /// Store that the revision belongs to.
    store: Uuid,
    revision: u64,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> NotificationsError {
    let path = path.to_owned();
    move |source| NotificationsError::Cursor { path, source }
}

/// Removes the positions of receivers that no longer exist: one that comes back starts over.
pub(super) fn remove_others(dir: &Path, receivers: &[Receiver]) -> Result<(), NotificationsError> {
    fs::create_dir_all(dir).map_err(failed(dir))?;
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        let is_cursor = path.extension().is_some_and(|extension| extension == EXTENSION);
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if is_cursor && receivers.iter().all(|receiver| receiver.name != name) {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    Ok(())
}

impl Cursor {
    /// Returns the position of a receiver, which is written first if there is none.
    pub(super) fn open(
        dir: &Path,
        name: &str,
        snapshot: &Snapshot,
    ) -> Result<(Self, u64), NotificationsError> {
        let path = dir.join(format!("{name}.{EXTENSION}"));
        let cursor = Self { path: path.clone(), store: snapshot.store };
        let known = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Position>(&bytes)
                .inspect_err(|error| {
                    let path = path.display();
                    tracing::error!(receiver = name, %path, %error, "the position of a receiver is damaged: it gets what happens from now on");
                })
                .ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&path)(error)),
        };
        // A later position than the store's last one is from before it was restored from a backup.
        let known = known.filter(|known| known.store == cursor.store && known.revision <= snapshot.revision);
        let revision = match known {
            Some(known) => known.revision,
            None => {
                cursor.save(snapshot.revision).map_err(failed(&path))?;
                snapshot.revision
            }
        };
        Ok((cursor, revision))
    }

    /// Replaces the position, and returns once it is durable.
    pub(super) fn save(&self, revision: u64) -> io::Result<()> {
        let next = self.path.with_extension("next");
        let mut file = File::create(&next)?;
        let position = Position { store: self.store, revision };
        file.write_all(&serde_json::to_vec(&position)?)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}
