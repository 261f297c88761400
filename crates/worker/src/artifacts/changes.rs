//! What an attempt has changed in its repository, and why that is not known or not delivered.

use rota_proto::v1::{Changes, Failure, FailureClass};
use tokio::sync::watch;

use crate::git::{self, Cause, GitError, Snapshot};
use crate::report::failure;
use crate::workspace::AttemptDirs;

const HINT_DELIVERY: &str =
    "see in the log what the agent did to its repository; the other files of the attempt are kept";

/// Why a repository's changes are not known.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    /// Otherwise the agent has broken it, or made it too large.
    pub(super) by_machine: bool,
    pub(super) failure: Failure,
}

/// Returns the failure of an attempt whose changes cannot be delivered, since there are none that are known.
pub(super) fn undelivered(lost: Option<Lost>) -> Failure {
    let reason =
        lost.map_or_else(|| "the workspace has no repository".to_owned(), |lost| lost.failure.message);
    let text = format!("the work is not delivered: {reason}");
    Failure { hint: HINT_DELIVERY.to_owned(), ..failure(FailureClass::Delivery, text) }
}

/// Takes the snapshot of the repository, if the workspace has one.
pub(super) async fn changes(dirs: &AttemptDirs) -> Result<Option<Snapshot>, Lost> {
    let Some((git, base)) = &dirs.repository else { return Ok(None) };
    // A request to end has its own limit, and may have come before.
    let (_sender, mut stop) = watch::channel(None);
    let (cause, failed) = match git::snapshot(git, base, &dirs.scratch, &mut stop).await {
        Ok(snapshot) => return Ok(Some(snapshot)),
        Err(GitError::Stopped) => {
            (Cause::Machine, failure(FailureClass::Environment, "the worker had to end"))
        }
        Err(GitError::Failed { cause, failure }) => (cause, failure),
    };
    let by_machine = cause == Cause::Machine;
    Err(match dirs.probe().await {
        Ok(()) => Lost { by_machine, failure: failed },
        Err(error) => {
            let text = format!("{}; the disk does not take files: {error}", failed.message);
            Lost { by_machine: true, failure: failure(FailureClass::Environment, text) }
        }
    })
}

pub(super) fn describe(changes: &Changes) -> String {
    if changes.commit == changes.base_commit {
        return "the repository has not changed".to_owned();
    }
    let Changes { files, insertions, deletions, branch, .. } = changes;
    format!("{branch} differs in {files} files: {insertions} lines added, {deletions} removed")
}
