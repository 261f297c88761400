//! The wait for a workspace that another attempt uses, which takes a slot and which no time limit of a task ends.

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use rota_proto::v1::FailureClass;
use tokio::sync::watch;
use tokio::time::timeout;

use super::PrepareError;
use crate::files::{Lock, last_use, locked};
use crate::layout::Sibling;
use crate::report::failure;
use crate::supervise::{Group, Stop};

/// Time after which an attempt that waits hands its task back, so that others get its slot.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// Awaits the lock of the workspace `name`, for a limited time.
pub(super) async fn in_turn<T>(
    name: &str,
    held: impl Future<Output = Result<T, PrepareError>>,
) -> Result<T, PrepareError> {
    timeout(MAX_WAIT, held).await.unwrap_or_else(|_| {
        let minutes = MAX_WAIT.as_secs() / 60;
        let text = format!("another attempt has used the workspace {name:?} for {minutes} minutes");
        // As of a planned stop: neither the task nor the worker is to blame.
        Err(PrepareError::Failed(failure(FailureClass::WorkerLost, text)))
    })
}

/// Waits for a kept workspace. What is returned holds the lock.
pub(super) async fn hold_kept(
    workspace: &Path,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<File, PrepareError> {
    let held = locked(&Sibling(workspace).lock(), Lock::Exclusive, stop).await?;
    let held = held.ok_or(PrepareError::Stopped)?;
    last_use::note(&held);
    // A killed worker's programs may still work in it.
    let supervisors = Sibling(workspace).supervisors();
    drop(locked(&supervisors, Lock::Exclusive, stop).await?.ok_or(PrepareError::Stopped)?);
    Group::lock_current(supervisors);
    Ok(held)
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{WorkspaceCleanup, WorkspaceMode};

    use super::super::Root;
    use super::super::tests::{assign, prepared};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_waits_hand_the_task_back() {
        let (state, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
        let path = project.path().to_str().unwrap();
        for (mode, path) in [(WorkspaceMode::Keep, "thread"), (WorkspaceMode::InPlace, path)] {
            let attempt = |fence| assign(mode, path, WorkspaceCleanup::Always, fence);
            let first = prepared(&root, &attempt(1)).await.unwrap();
            let Err(PrepareError::Failed(failed)) = prepared(&root, &attempt(2)).await else {
                panic!("another attempt has {path}")
            };
            assert_eq!(failed.class(), FailureClass::WorkerLost);
            assert!(failed.message.contains(path), "{failed:?}");
            drop(first);
            prepared(&root, &attempt(3)).await.unwrap();
        }
    }
}
