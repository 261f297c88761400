//! Stores what an attempt of an earlier process of the worker has left.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::Retryable;
use rota_proto::v1::{Failure, FailureClass, Severity, event};
use rota_proto::worker::v1::{Cancelled, Result as AttemptResult, result};
use tokio::sync::watch;
use tokio::time::Instant;

use super::calls::Caller;
use super::checkpoint::{self, Copied};
use super::globs::Keep;
use super::keep::{Delivering, MIN_TIME, in_time, judged, of_disk};
use super::room::{delays, waits};
use super::store::{Stored, look, store};
use crate::git::Undelivered;
use crate::layout::Own;
use crate::report::{failure, notice};
use crate::supervise::Stop;
use crate::workspace::{AttemptDirs, Left};

/// What has become of what an attempt left.
pub(crate) struct LaterEnd {
    pub(crate) notices: Vec<event::Kind>,
    pub(crate) result: AttemptResult,
    /// Whether only the disk has the work, which no storage takes: its files stay there.
    pub(crate) only_here: bool,
}

/// Stores what is left: that of a success however long the storage takes, that of others within a time, as the earlier process would
/// have done. Without `is_whole`, the workspace has files of others: a success that keeps some of it is none.
pub(crate) async fn store_left(
    caller: &Caller,
    left: &Left,
    dirs: &AttemptDirs,
    is_whole: bool,
    limit: Duration,
    stop: watch::Receiver<Option<Stop>>,
) -> LaterEnd {
    let (kept, changes) = (left.kept(), left.changes.clone());
    let succeeded = matches!(left.result.kind, Some(result::Kind::Succeeded(_)));
    let end = |notices, result, only_here| LaterEnd { notices, result, only_here };
    let failed = |failed| AttemptResult { kind: Some(result::Kind::Failed(failed)), ..left.result.clone() };
    let bundle = bundle(left, dirs).filter(|_| succeeded);
    if let Some(path) = &bundle
        && is_missing(path).await
    {
        let text = format!("the disk of the worker has lost a part of the work: {}", path.display());
        let hint = stays(dirs);
        return end(Vec::new(), failed(Failure { hint, ..failure(FailureClass::Environment, text) }), true);
    }
    let limit = if succeeded { Duration::MAX } else { limit.max(MIN_TIME) };
    // They were valid when the attempt began.
    let globs = Keep::of(if is_whole { &kept.globs } else { &[] }).ok();
    let copied = copied(left, dirs).await;
    let is_lost = copied.is_none() && left.conversation.is_some();
    let lost = || {
        notice(
            Severity::Medium,
            "checkpoint_failed",
            "the disk of the worker has lost the copy of the conversation",
        )
    };
    let look = look(dirs, globs, changes.clone().unwrap_or_default(), copied);
    // Those that are to be delivered are not pushed here: another attempt needs them.
    let is_left = !left.delivers && dirs.outlives_success();
    let began = Instant::now();
    let once = || async {
        if let Some(path) = &bundle {
            readable(path).await?;
        }
        let mut notices: Vec<_> = is_lost.then(lost).into_iter().collect();
        let stored = store(caller, &kept, dirs, changes.clone(), look.clone(), false, &mut notices).await;
        let stored = judged(stored, succeeded, look.clone(), is_left, changes.as_ref(), &mut notices).await?;
        Ok::<_, Undelivered>((notices, stored))
    };
    let stored = once.retry(delays()).when(|failed| succeeded && waits(failed, began.elapsed()));
    match in_time(limit, stop.clone(), &Delivering::default(), Box::pin(stored)).await {
        Ok((notices, _)) if succeeded && !is_whole && !kept.globs.is_empty() => {
            let text = "another task has worked in the workspace before its files could be stored";
            let lost = Failure { of_storage: true, ..failure(FailureClass::Source, text) };
            end(notices, failed(lost), false)
        }
        Ok((notices, stored)) => end(notices, ended(left, &stored), false),
        // It was cancelled meanwhile.
        Err(_) if stop.borrow().is_some() => {
            let kind = Some(result::Kind::Cancelled(Cancelled { by: "interrupt".to_owned() }));
            end(Vec::new(), AttemptResult { kind, ..left.result.clone() }, false)
        }
        Err(refused) if succeeded => {
            end(Vec::new(), failed(Failure { hint: stays(dirs), ..*refused.failure }), true)
        }
        Err(refused) => {
            let lost = notice(Severity::High, "artifacts_not_stored", refused.failure.message);
            end(vec![lost], left.result.clone(), false)
        }
    }
}

/// Returns the path of the bundle, if one was described.
fn bundle(left: &Left, dirs: &AttemptDirs) -> Option<PathBuf> {
    let bundle = left.changes.as_ref().map(|changes| &changes.bundle).filter(|bundle| !bundle.is_empty())?;
    Some(dirs.scratch.join(bundle))
}

/// Fails while the disk does not show a file.
async fn readable(path: &Path) -> Result<(), Undelivered> {
    let found = tokio::fs::metadata(path).await;
    found.map(drop).map_err(|error| {
        let text = format!("a part of the work, {}, cannot be read: {error}", path.display());
        of_disk(failure(FailureClass::Environment, text))
    })
}

/// Returns the copy that a later attempt would continue from, if the disk has it: without it, that is an earlier one.
async fn copied(left: &Left, dirs: &AttemptDirs) -> Option<Copied> {
    let copied = left.copied()?;
    let copies = Own(dirs.own()).copies().join(checkpoint::FOLDER);
    let path = match copied.conversation.as_str() {
        "" => copies,
        conversation => copies.join(checkpoint::file_of(conversation)),
    };
    (!is_missing(&path).await).then_some(copied)
}

/// Whether a file is not there. A disk that fails has lost nothing yet.
async fn is_missing(path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Returns the hint of a success whose files stay where they are.
fn stays(dirs: &AttemptDirs) -> String {
    format!("until the next start of the worker, the work is in {}", dirs.own().display())
}

/// Returns how an attempt ends whose files are stored: work that is to be delivered is done, and another attempt delivers it.
fn ended(left: &Left, stored: &Stored) -> AttemptResult {
    let mut ended = left.result.clone();
    if let Some(result::Kind::Succeeded(result)) = &ended.kind
        && left.delivers
    {
        let (text, result) = match left.changes {
            Some(_) if *stored == Stored::Nowhere => {
                ("the work is not delivered: it could not be stored", None)
            }
            Some(_) => ("the worker was restarted before it could deliver the work", Some(result.clone())),
            None => ("the work is not delivered: the changes of its repository are not known", None),
        };
        ended.kind = Some(result::Kind::Failed(failure(FailureClass::Delivery, text)));
        ended.undelivered = result;
    }
    ended
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rota_client::{Options, RenewableChannel, Token};
    use rota_proto::v1::{Changes, TaskResult};
    use rota_proto::worker::v1::Assign;

    use super::*;
    use crate::layout;
    use crate::workspace::Root;

    /// Returns the directories of an attempt that has succeeded, and what it has left.
    async fn succeeded(state: &Path) -> (AttemptDirs, Left) {
        let root = Root::open(state.to_owned(), "default", "w", None).unwrap();
        let assign = Assign {
            task_id: "t1".to_owned(),
            namespace: "default".to_owned(),
            fence: 1,
            ..Assign::default()
        };
        let dirs = root.prepare(&assign, None, &mut watch::channel(None).1, async {}).await.unwrap();
        let kind = Some(result::Kind::Succeeded(TaskResult::default()));
        let bundle = format!("{}/changes.bundle", layout::GIT);
        let left = Left {
            result: AttemptResult { kind, ..AttemptResult::default() },
            namespace: "default".to_owned(),
            changes: Some(Changes { bundle, ..Changes::default() }),
            conversation: Some(String::new()),
            ..Left::default()
        };
        (dirs, left)
    }

    /// A link to itself: the system reports an error that is not that of a missing file.
    fn unreadable(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(path, path).unwrap();
    }

    async fn store(left: &Left, dirs: &AttemptDirs) -> Failure {
        let channel = RenewableChannel::new(Options::new("http://127.0.0.1:1")).unwrap();
        let caller = Caller { channel, token: Token::None, worker: "w".to_owned() };
        let (_stop, stop) = watch::channel(None);
        let end = store_left(&caller, left, dirs, true, Duration::ZERO, stop).await;
        assert!(end.only_here, "the files stay");
        let Some(result::Kind::Failed(failure)) = end.result.kind else { panic!("no failure") };
        failure
    }

    #[tokio::test(start_paused = true)]
    async fn unreadable_work_waits_for_the_disk() {
        let state = tempfile::tempdir().unwrap();
        let (dirs, left) = succeeded(state.path()).await;
        unreadable(&dirs.scratch.join(layout::GIT));
        let began = Instant::now();
        let failure = store(&left, &dirs).await;
        assert!(failure.message.contains("cannot be read"), "{failure:?}");
        assert!(failure.hint.contains("the work is in"), "{failure:?}");
        assert!(began.elapsed() >= MIN_TIME, "it may have been for now");
    }

    #[tokio::test(start_paused = true)]
    async fn missing_work_is_lost() {
        let state = tempfile::tempdir().unwrap();
        let (dirs, left) = succeeded(state.path()).await;
        let failure = store(&left, &dirs).await;
        assert!(failure.message.contains("has lost a part of the work"), "{failure:?}");
    }

    #[tokio::test]
    async fn unreadable_copies_are_not_lost() {
        let state = tempfile::tempdir().unwrap();
        let (dirs, left) = succeeded(state.path()).await;
        assert!(copied(&left, &dirs).await.is_none(), "there are none");
        unreadable(&Own(dirs.own()).copies().join(checkpoint::FOLDER));
        assert!(copied(&left, &dirs).await.is_some());
    }
}
