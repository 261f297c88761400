//! Directories of attempts whose files are still to be stored, by this process of a worker or the next one of its name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_proto::v1::WorkspaceCleanup;
use rota_telemetry::clock;

use super::sweep::entries;
use super::{AttemptDirs, Root, remove};
use crate::artifacts::{Left, is_left};

/// Time after which what is left counts as forgotten: a day more than the control plane waits, whose count begins later.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(8 * 24);

impl Root {
    /// Returns what attempts of earlier processes of this worker have left to be stored; nothing while such a process lives. Blocks.
    pub(crate) fn left(&self) -> Vec<Left> {
        if self.owner.lock().is_none() {
            return Vec::new();
        }
        let named = |own: &PathBuf, left: &Left| own.file_name() == Some(name(left).as_ref());
        let all = entries(&self.attempts).map(|entry| entry.path());
        all.filter_map(|own| Left::read(&own).filter(|left| named(&own, left))).collect()
    }

    /// Returns the directories of an attempt of an earlier process.
    pub(crate) fn dirs_of(&self, left: &Left) -> AttemptDirs {
        let own = self.attempts.join(name(left));
        AttemptDirs {
            workspace: PathBuf::from(&left.workspace),
            scratch: own.join("scratch"),
            own,
            trash: self.trash.clone(),
            cleanup: WorkspaceCleanup::try_from(left.cleanup).unwrap_or_default(),
            lock: None,
            _in_place: None,
            included: None,
            repository: None,
            delivery: None,
            undelivered: None,
            fresh: false,
            own_work: false,
            set_aside: None,
            started: true,
            checkpoint: None,
            last_checkpoint: left.last_checkpoint().into(),
            has_list: left.has_list.into(),
            borrowed: None,
        }
    }
}

/// Returns the name of the directory of an attempt.
fn name(left: &Left) -> String {
    format!("{}.{}", left.result.task_id, left.result.fence)
}

/// Moves the directories of a worker's attempts away that have nothing left to be stored.
pub(super) fn remove_others(attempts: &Path, trash: &Path) {
    for own in entries(attempts).map(|entry| entry.path()).filter(|own| !is_left(own)) {
        remove::in_background(&own, trash);
    }
}

/// Whether a worker's attempts have left something that is not forgotten.
pub(super) fn has_left(attempts: &Path) -> bool {
    let is_young = |own: &Path| {
        let written = fs::metadata(own).and_then(|found| found.modified()).ok();
        let age = written.and_then(|written| clock::now().duration_since(written).ok());
        age.is_none_or(|age| age < FORGOTTEN_AFTER)
    };
    entries(attempts).map(|entry| entry.path()).any(|own| is_left(&own) && is_young(&own))
}
