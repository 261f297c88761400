//! What an attempt leaves besides the files that its programs wrote: copies of its conversation, and the snapshot of its repository.
//! Made once, after its programs have ended: a later process of the worker stores them as they were described.

use std::io;
use std::sync::Arc;

use rota_proto::v1::{Changes, Severity, event};
use tokio::sync::OnceCell;

use super::changes::{Lost, changes, describe};
use super::checkpoint::{self, Copied};
use crate::git::Snapshot;
use crate::layout::Own;
use crate::program_dir::is_of_machine;
use crate::report::notice;
use crate::workspace::{AttemptDirs, remove_temporary};

/// Notice of commits that only a bundle has.
const COMMITS_ELSEWHERE: &str = "commits of other branches, or stashed ones, are no part of the changes: they are kept in git/branches.bundle";

/// The copies and the snapshot, with the notices about them.
#[derive(Debug, Clone, Default)]
pub(super) struct Prepared {
    pub(super) copied: Option<Copied>,
    pub(super) changes: Option<Changes>,
    /// Whether the machine is the reason why there are no copies.
    lacks_copies: bool,
    /// Why the changes are not known, if there is a repository.
    pub(super) lost: Option<Lost>,
    pub(super) notices: Vec<event::Kind>,
}

impl Prepared {
    async fn make(dirs: &AttemptDirs) -> Self {
        let mut made = Self::default();
        // Before the snapshot: a conversation that is newer than the files would name what is not there.
        made.copied = copied(dirs).await.unwrap_or_else(|Broken { by_machine, reason }| {
            made.lacks_copies = by_machine;
            made.notices.push(notice(Severity::Medium, "checkpoint_failed", reason));
            None
        });
        let mut found = changes(dirs).await;
        if found.as_ref().is_err_and(|lost| lost.by_machine) {
            // Perhaps what nothing needs any more fills the disk.
            let scratch = dirs.scratch.clone();
            let freed = tokio::task::spawn_blocking(move || remove_temporary(&scratch)).await;
            if let Err(error) = freed.map_err(io::Error::other).flatten() {
                tracing::warn!(%error, "failed to remove temporary files of an attempt");
            }
            found = changes(dirs).await;
        }
        match found {
            Ok(Some(Snapshot { changes, elsewhere })) => {
                made.notices.push(notice(Severity::Low, "changes", describe(&changes)));
                let elsewhere =
                    elsewhere.then(|| notice(Severity::Medium, "commits_elsewhere", COMMITS_ELSEWHERE));
                made.notices.extend(elsewhere);
                made.changes = Some(changes);
            }
            Ok(None) => {}
            Err(lost) => made.lost = Some(lost),
        }
        made
    }

    /// Returns what an earlier call has made, unless the machine was at fault then.
    pub(super) async fn once(cell: &OnceCell<Self>, dirs: &AttemptDirs) -> Self {
        let make = || async {
            let made = Self::make(dirs).await;
            if made.is_whole() { Ok(made) } else { Err(made) }
        };
        cell.get_or_try_init(make).await.cloned().unwrap_or_else(|made| made)
    }

    /// Whether nothing is missing that another try could bring.
    pub(super) fn is_whole(&self) -> bool {
        !self.lacks_copies && self.lost.as_ref().is_none_or(|lost| !lost.by_machine)
    }
}

/// Why there are no copies.
#[derive(Debug)]
pub(super) struct Broken {
    /// Otherwise what the programs have left cannot be copied.
    by_machine: bool,
    /// Message for users, in a notice.
    pub(super) reason: String,
}

/// Copies what a later attempt continues from, once earlier copies of the attempt have ended.
pub(super) async fn copied(dirs: &AttemptDirs) -> Result<Option<Copied>, Broken> {
    let Some((folder, redactor)) = dirs.checkpoint.clone() else { return Ok(None) };
    let copies = Own(dirs.own()).copies();
    let alone = Arc::clone(&dirs.copying).lock_owned().await;
    let copy = tokio::task::spawn_blocking(move || {
        // Longer than the caller may wait: the copy continues.
        let _alone = alone;
        checkpoint::copy(&folder, &copies, &redactor)
    });
    let error = match copy.await.map_err(io::Error::other).flatten() {
        Ok(copied) => return Ok(copied),
        Err(error) => error,
    };
    let by_machine = is_of_machine(&error) || dirs.probe().await.is_err();
    let reason = format!("what a later attempt would continue from cannot be copied: {error}");
    Err(Broken { by_machine, reason })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use futures::FutureExt;
    use rota_proto::worker::v1::Assign;
    use rota_telemetry::redact::Redactor;
    use tokio::sync::watch;

    use super::*;
    use crate::artifacts::checkpoint::tests::folder;
    use crate::workspace::Root;

    /// Returns the directories of an attempt that has written a conversation.
    async fn talked(state: &Path) -> AttemptDirs {
        let root = Root::open(state.to_owned(), "default", "w", None).unwrap();
        let assign = Assign {
            task_id: "t1".to_owned(),
            namespace: "default".to_owned(),
            fence: 1,
            ..Assign::default()
        };
        let mut dirs = root.prepare(&assign, None, &mut watch::channel(None).1, async {}).await.unwrap();
        let programs = state.join("programs");
        fs::create_dir_all(programs.join("projects/rota")).unwrap();
        fs::write(programs.join("projects/rota/c.jsonl"), "{\"type\":\"user\"}\n").unwrap();
        dirs.checkpoint = Some((folder(&programs, &["c"]), Redactor::default()));
        dirs
    }

    #[tokio::test]
    async fn copies_that_the_disk_refused_are_made_again() {
        let state = tempfile::tempdir().unwrap();
        let dirs = talked(state.path()).await;
        let aside = state.path().join("aside");
        fs::rename(dirs.own(), &aside).unwrap();
        fs::write(dirs.own(), "in place of the folder").unwrap();
        let cell = OnceCell::new();
        let made = Prepared::once(&cell, &dirs).await;
        assert!(made.copied.is_none() && !made.is_whole(), "{made:?}");
        fs::remove_file(dirs.own()).unwrap();
        fs::rename(aside, dirs.own()).unwrap();
        let made = Prepared::once(&cell, &dirs).await;
        assert_eq!(made.copied.as_ref().map(|copied| copied.conversation.as_str()), Some("c"));
        assert!(made.is_whole() && made.notices.is_empty(), "{made:?}");
    }

    #[tokio::test]
    async fn copies_that_programs_prevent_are_given_up() {
        let state = tempfile::tempdir().unwrap();
        let dirs = talked(state.path()).await;
        let written = state.path().join("programs/projects");
        fs::remove_dir_all(&written).unwrap();
        std::os::unix::fs::symlink("/", written).unwrap();
        let made = Prepared::once(&OnceCell::new(), &dirs).await;
        assert!(made.copied.is_none() && made.is_whole() && made.notices.len() == 1, "{made:?}");
    }

    /// A checkpoint was given up, and the copies that it has begun are not complete.
    #[tokio::test]
    async fn copies_wait_for_those_that_were_given_up() {
        let state = tempfile::tempdir().unwrap();
        let dirs = talked(state.path()).await;
        let begun = Arc::clone(&dirs.copying).lock_owned().await;
        let half = Own(dirs.own()).copies().join("checkpoint/half");
        fs::create_dir_all(half.parent().unwrap()).unwrap();
        fs::write(&half, "").unwrap();
        let cell = OnceCell::new();
        let mut last = std::pin::pin!(Prepared::once(&cell, &dirs));
        assert!(last.as_mut().now_or_never().is_none() && half.exists());
        drop(begun);
        assert_eq!(last.await.copied.unwrap().conversation, "c");
        assert!(!half.exists());
    }
}
