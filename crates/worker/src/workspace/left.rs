//! Directories of attempts whose files are still to be stored, by this process of a worker or the next one of its name.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_proto::times::MAX_STORING_TIME;
use rota_proto::v1::WorkspaceCleanup;
use rota_proto::worker::v1::Result as AttemptResult;
use rota_telemetry::clock;

use super::kept_by::KeptBy;
use super::left_file::{Left, is_left};
use super::sweep::entries;
use super::{AttemptDirs, Root};
use crate::files::{Lock, remove, try_acquire};
use crate::layout::{self, Own, Sibling, State};
use crate::program_dir;

/// Time after which what is left counts as forgotten: a day more than the control plane waits, whose count begins later.
const FORGOTTEN_AFTER: Duration = MAX_STORING_TIME.saturating_add(Duration::from_hours(24));

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

    /// Writes how an attempt has ended that has nothing to be stored, for the next process of this worker: its directories are removed, and
    /// no session takes the result. Returns false where the directory has the work itself, which stays as it is. Blocks.
    pub(crate) fn leave_result(&self, namespace: &str, result: AttemptResult) -> io::Result<bool> {
        let left = Left { result, namespace: namespace.to_owned(), ..Left::default() };
        let own = self.attempts.join(name(&left));
        if is_left(&own) {
            return Ok(false);
        }
        fs::create_dir_all(&own)?;
        left.write_alone(&own)?;
        Ok(true)
    }

    /// Removes that, once the control plane has the result.
    pub(crate) fn forget_result(&self, task: &str, fence: i64) {
        remove::in_background(&self.attempts.join(name_of(task, fence)), &self.trash);
    }

    /// Returns the directories of an attempt of an earlier process, and whether the workspace still has what it left: no other attempt
    /// works there, or has worked in a kept one. Takes the lock of the workspace.
    pub(crate) fn take_over(&self, left: &Left) -> (AttemptDirs, bool) {
        let (own, workspace) = (self.attempts.join(name(left)), PathBuf::from(&left.workspace));
        let (mut lock, mut in_place) = (None, None);
        let is_whole = if workspace.starts_with(State(&self.state).all_kept()) {
            lock = File::options().write(true).open(Sibling(&workspace).lock()).ok();
            lock = lock.filter(|file| file.try_lock().is_ok());
            let is_own = |kept_by: KeptBy| kept_by.is_of(&left.result.task_id);
            lock.is_some() && KeptBy::read(&workspace).is_none_or(is_own)
        } else if workspace.starts_with(&self.state) {
            true
        } else {
            let kind = if left.shared { Lock::Shared } else { Lock::Exclusive };
            in_place = File::open(&workspace).ok().map(|file| (file, kind));
            // Some file systems have no locks.
            let is_free =
                |held: &(File, Lock)| !matches!(try_acquire(&held.0, kind), Err(TryLockError::WouldBlock));
            in_place.as_ref().is_some_and(is_free)
        };
        let dirs = AttemptDirs {
            workspace,
            scratch: Own(&own).scratch(),
            own,
            trash: self.trash.clone(),
            cleanup: WorkspaceCleanup::try_from(left.cleanup).unwrap_or_default(),
            lock,
            in_place,
            included: None,
            repository: None,
            delivery: None,
            undelivered: None,
            made: false,
            fresh: false,
            own_work: false,
            set_aside: None,
            started: true,
            checkpoint: None,
            last_checkpoint: left.last_checkpoint().into(),
            has_list: left.has_list.into(),
            copying: Default::default(),
            borrowed: None,
        };
        (dirs, is_whole)
    }
}

/// Removes all of the directory of an attempt but what is still to be stored and delivered: other files may have secrets, and wait for
/// days. No program of the attempt runs any more. Blocks.
pub(crate) fn remove_unneeded(own: &Path) {
    let scratch = Own(own).scratch();
    let needed = [layout::LEFT, layout::SCRATCH, layout::WORK, layout::COPIES, layout::DELIVER];
    let needed_of_scratch = [layout::OUTPUT, layout::GIT];
    for (folder, needed) in [(own, &needed[..]), (&scratch, &needed_of_scratch)] {
        let all = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in all.filter(|entry| !needed.iter().any(|name| entry.file_name() == *name)) {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_folder { remove::now(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "failed to remove files of an attempt that waits for a storage");
            }
        }
    }
}

/// Removes temporary files of an attempt, and those in its home besides settings, which git may need. No program of the attempt runs
/// any more. Blocks.
pub(crate) fn remove_temporary(scratch: &Path) -> io::Result<()> {
    let scratch = program_dir::open(scratch)?;
    for (folder, needed) in [(layout::TMP, &[][..]), (layout::HOME, &[".gitconfig", ".config"])] {
        // One that is not there, or is a link of a program.
        if !scratch.symlink_metadata(folder).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        let folder = scratch.open_dir(folder)?;
        for entry in folder.entries()? {
            let name = entry?.file_name();
            if !needed.iter().any(|needed| name == *needed) {
                program_dir::remove(&folder, Path::new(&name))?;
            }
        }
    }
    Ok(())
}

/// Returns the name of the directory of an attempt.
fn name(left: &Left) -> String {
    name_of(&left.result.task_id, left.result.fence)
}

fn name_of(task: &str, fence: i64) -> String {
    format!("{task}.{fence}")
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_what_is_to_be_stored_waits() {
        let root = tempfile::tempdir().unwrap();
        let (own, outside) = (root.path().join("t.1"), root.path().join("outside"));
        let write = |path: &str| {
            let path = own.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        let needed =
            ["left", "scratch/output/a", "scratch/git/changes.bundle", "work/b", "copies/c", "deliver/d"];
        let secret =
            ["settings/mcp.json", "scratch/tmp/.netrc", "scratch/claude/c.jsonl", "scratch/x", "restored/c"];
        needed.iter().chain(&secret).for_each(|path| write(path));
        fs::write(&outside, "of the user").unwrap();
        symlink(&outside, own.join("scratch/link")).unwrap();
        // As package caches are.
        fs::set_permissions(own.join("scratch/tmp"), fs::Permissions::from_mode(0o500)).unwrap();
        remove_unneeded(&own);
        assert!(needed.iter().all(|path| own.join(path).exists()));
        assert!(secret.iter().all(|path| !own.join(path).exists()) && !own.join("scratch/link").is_symlink());
        assert!(outside.exists());
    }

    #[tokio::test]
    async fn results_wait_for_the_next_process() {
        let state = tempfile::tempdir().unwrap();
        let open = || Root::open(state.path().to_owned(), "default", "w", None).unwrap();
        let result = AttemptResult { task_id: "t".to_owned(), fence: 3, ..AttemptResult::default() };
        let earlier = open();
        assert!(earlier.leave_result("default", result.clone()).unwrap());
        drop(earlier);
        let root = open();
        root.sweep();
        let all = root.left();
        let [left] = &all[..] else { panic!("{all:?}") };
        assert_eq!((&left.result, left.namespace.as_str()), (&result, "default"));
        // It has nothing else, whatever the workspace was.
        assert!(!root.take_over(left).0.own().join("scratch").exists());
        // That may be of an attempt whose work only the disk has.
        let other = AttemptResult { runtime_session: "other".to_owned(), ..result.clone() };
        assert!(!root.leave_result("default", other).unwrap());
        assert_eq!(root.left()[0].result, result);
        root.forget_result("t", 3);
        assert_eq!(root.left(), []);
    }

    #[test]
    fn temporary_files_make_room_for_what_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join("scratch").join(path);
        let kept = ["home/.gitconfig", "home/.config/git/ignore", "output/a", "checkpoint/step"];
        let removed = ["tmp/a/b", "home/.cache/c"];
        for path in kept.iter().chain(&removed) {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "x").unwrap();
        }
        fs::write(root.path().join("outside"), "of the user").unwrap();
        symlink(root.path(), at("tmp/link")).unwrap();
        remove_temporary(&at("")).unwrap();
        assert!(kept.iter().all(|path| at(path).exists()));
        assert!(removed.iter().all(|path| !at(path).exists()) && !at("tmp/link").is_symlink());
        fs::remove_dir_all(at("home")).unwrap();
        symlink(root.path(), at("home")).unwrap();
        remove_temporary(&at("")).unwrap();
        assert!(root.path().join("outside").exists());
    }
}
