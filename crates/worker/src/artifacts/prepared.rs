//! What an attempt leaves besides the files that its programs wrote: copies of its conversation, and the snapshot of its repository.
//! Made once, after its programs have ended: a later process of the worker stores them as they were described.

use rota_proto::v1::{Changes, Severity, event};
use tokio::sync::OnceCell;

use super::changes::{Lost, changes, describe};
use super::checkpoint::{self, Copied};
use crate::git::Snapshot;
use crate::runtimes::notice;
use crate::workspace::{AttemptDirs, COPIES};

/// Notice of commits that only a bundle has.
const COMMITS_ELSEWHERE: &str = "commits of other branches, or stashed ones, are no part of the changes: they are kept in git/branches.bundle";

/// The copies and the snapshot, with the notices about them.
#[derive(Debug, Clone, Default)]
pub(super) struct Prepared {
    pub(super) copied: Option<Copied>,
    pub(super) changes: Option<Changes>,
    /// Why the changes are not known, if there is a repository.
    pub(super) lost: Option<Lost>,
    pub(super) notices: Vec<event::Kind>,
}

impl Prepared {
    async fn make(dirs: &AttemptDirs) -> Self {
        let mut made = Self::default();
        // Before the snapshot: a conversation that is newer than the files would name what is not there.
        made.copied = copied(dirs).await.unwrap_or_else(|reason| {
            made.notices.push(notice(Severity::Medium, "checkpoint_failed", reason));
            None
        });
        match changes(dirs).await {
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
        self.lost.as_ref().is_none_or(|lost| !lost.by_machine)
    }
}

/// Copies what a later attempt continues from. The error is for people.
pub(super) async fn copied(dirs: &AttemptDirs) -> Result<Option<Copied>, String> {
    let Some((folder, redactor)) = dirs.checkpoint.clone() else { return Ok(None) };
    let copies = dirs.closed(COPIES);
    let copy = tokio::task::spawn_blocking(move || checkpoint::copy(&folder, &copies, &redactor)).await;
    let copied = copy.map_err(|error| error.to_string())?;
    copied.map_err(|error| format!("what a later attempt would continue from cannot be copied: {error}"))
}
