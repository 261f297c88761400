//! Keeps what an attempt leaves behind: uploads it, and has the control plane keep the list, before the result is sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rota_proto::num;
use rota_proto::times::{CONFIRM_SLACK, FREED_AFTER};
use rota_proto::v1::{Changes, Delivery, Failure, FailureClass, Severity, WorkspaceMode, event};
use rota_proto::worker::v1::Assign;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::calls::Caller;
use super::changes::{Lost, changes, undelivered};
use super::deliver;
use super::globs::Keep;
use super::left::SlotRelease;
use super::prepared::{Prepared, copied};
use super::store::{Looked, Stored, UNREADABLE, look, store};
use crate::git::{MAX_TRANSFER_TIME, Undelivered, Work};
use crate::report::{failure, notice};
use crate::supervise::{Stop, stopped};
use crate::workspace::{AttemptDirs, Left};

/// Time for an upload, if the worker keeps attempts without a control plane for a shorter one.
pub(super) const MIN_TIME: Duration = Duration::from_secs(30 * 60);
/// The same of an attempt that was asked to end: the control plane does not wait much longer for its end.
const STOPPING_TIME: Duration = CONFIRM_SLACK.saturating_sub(Duration::from_secs(10));
/// The same for a delivery: a later attempt can do it.
const STOPPING_DELIVERY_TIME: Duration = Duration::from_secs(5);
pub(super) const HINT: &str = "check the storage of artifacts and the log of the control plane";

const HINT_DISK: &str = "make room on the disk of the worker, and check its memory: the work is there, and is kept once it can be read";

/// What an attempt keeps, taken from its assignment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Kept {
    pub(super) namespace: String,
    pub(super) task_id: String,
    pub(super) fence: i64,
    pub(super) globs: Vec<String>,
    /// Whether the attempt could not continue what it was given.
    pub(crate) unusable: bool,
    /// Time for which the attempt waits for a person until it offers to release its slot; `None` for no limit.
    pub(crate) release_after: Option<Duration>,
    /// Time for an upload without a control plane, if that is longer than the shortest one.
    pub(crate) limit: Duration,
}

impl Kept {
    pub(crate) fn of(assign: &Assign) -> Self {
        let workspace = assign.spec.as_ref().and_then(|spec| spec.workspace.as_ref());
        Self {
            namespace: assign.namespace.clone(),
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            globs: workspace.map(|workspace| workspace.keep_files.clone()).unwrap_or_default(),
            unusable: false,
            // In a kept workspace, another worker would have other files.
            release_after: (assign.release_after)
                .filter(|_| workspace.is_none_or(|workspace| workspace.mode() != WorkspaceMode::Keep))
                .and_then(|after| after.try_into().ok()),
            limit: Duration::ZERO,
        }
    }
}

/// Stores the files of an attempt, and delivers its changes if it
/// succeeded (`work`) and its task asks for it. Describes on the disk what is left if its slot is wanted. Returns notices for its log, and what has become of the changes. The error is why
/// its result must not count. Calls for the same attempt share what is `prepared`.
pub(super) async fn keep(
    caller: &Caller,
    kept: Kept,
    dirs: &AttemptDirs,
    work: Option<Work>,
    stop: watch::Receiver<Option<Stop>>,
    slot: &SlotRelease,
    prepared: &OnceCell<Prepared>,
) -> Result<(Vec<event::Kind>, Option<Delivery>), Undelivered> {
    let limit = kept.limit.max(MIN_TIME);
    let delivering = Delivering::default();
    delivering.is_kept.store(dirs.undelivered.is_some(), Ordering::Relaxed);
    if let Some(left) = &dirs.undelivered {
        let Some(work) = work else { return Ok((Vec::new(), None)) };
        let again = deliver::again(caller, &kept, dirs, left, work, &delivering.pushing);
        return in_time(limit, stop, &delivering, Box::pin(again)).await;
    }
    let keep = Keep::of(&kept.globs).map_err(|error| failure(FailureClass::Invalid, error.to_string()))?;
    let mut ending = stop.clone();
    let all = async {
        let made = Prepared::once(prepared, dirs).await;
        let is_whole = made.is_whole();
        let Prepared { copied, mut changes, lost, mut notices, .. } = made;
        let left = |result| {
            let left = Left::of(result, &kept, dirs, changes.as_ref(), copied.as_ref());
            left.filter(|_| is_whole)
        };
        slot.describe_now(dirs, left).await;
        let first = look(dirs, None, changes.clone().unwrap_or_default(), copied.clone());
        let look = look(dirs, Some(keep), changes.clone().unwrap_or_default(), copied.clone());
        let stored = tokio::select! {
            biased;
            never = slot.describe(dirs, left) => match never {},
            // First what the next attempt continues from: the rest may take longer than there is time, or have no room.
            _ = stopped(&mut ending) => {
                match store(caller, &kept, dirs, changes.clone(), first, false, &mut Vec::new()).await {
                    Ok(Stored::Kept) => {
                        store(caller, &kept, dirs, changes.clone(), look.clone(), false, &mut notices).await
                    }
                    stored => stored,
                }
            }
            stored = store(caller, &kept, dirs, changes.clone(), look.clone(), false, &mut notices) => stored,
        };
        let is_left = dirs.delivery.is_some() || dirs.outlives_success();
        let stored =
            judged(stored, work.is_some(), look.clone(), is_left, changes.as_ref(), &mut notices).await?;
        if stored == Stored::Superseded {
            return Ok((notices, None));
        }
        let delivery = dirs.delivery.as_ref().zip(work);
        let (changes, delivery) = match (&mut changes, delivery, lost) {
            // The work is there, and is lost with the directories.
            (_, _, Some(Lost { by_machine: true, failure })) => return Err(of_disk(failure)),
            (None, Some(_), lost) => return Err(Undelivered { notices, ..undelivered(lost).into() }),
            (None, None, lost) => {
                let lost = lost.map(|lost| lost.failure.message);
                notices.extend(lost.map(|text| notice(Severity::High, "changes_not_kept", text)));
                return Ok((notices, None));
            }
            (Some(_), None, _) => return Ok((notices, None)),
            (Some(changes), Some(delivery), _) => (changes, delivery),
        };
        let (delivery, work) = delivery;
        let is_kept = stored == Stored::Kept;
        delivering.is_kept.store(is_kept, Ordering::Relaxed);
        let failed = |failed: Undelivered, notices| {
            let is_kept = failed.is_kept && is_kept;
            Undelivered { is_kept, notices, ..failed }
        };
        let pushed = deliver::push(delivery, changes, &dirs.scratch, &mut notices, &delivering.pushing);
        let mut delivered = match pushed.await {
            Ok(delivered) => delivered,
            Err(error) => return Err(failed(error, notices)),
        };
        if changes.pushed {
            // It was kept before, and the work is where it belongs.
            let again = store(caller, &kept, dirs, Some(changes.clone()), look, false, &mut Vec::new()).await;
            if let Err(failed) = noted(again, &mut notices) {
                notices.push(notice(Severity::Medium, "artifacts_not_stored", failed.failure.message));
            }
        }
        match deliver::request(delivery, &mut delivered, &work, &mut notices).await {
            Ok(()) => Ok((notices, Some(delivered))),
            Err(error) => Err(failed(error, notices)),
        }
    };
    in_time(limit, stop, &delivering, Box::pin(all)).await
}

/// How far a delivery is.
#[derive(Debug, Default)]
pub(super) struct Delivering {
    /// Whether the work is stored, and can be delivered later.
    is_kept: AtomicBool,
    /// Whether it is being pushed.
    pushing: watch::Sender<bool>,
}

/// Runs what stores and delivers within a time, which is short once the attempt has to end.
pub(super) async fn in_time<T>(
    limit: Duration,
    mut stop: watch::Receiver<Option<Stop>>,
    delivering: &Delivering,
    work: impl Future<Output = Result<T, Undelivered>>,
) -> Result<T, Undelivered> {
    let late = |reason: &str| {
        let text = format!("the work is not delivered: {reason}");
        match delivering.is_kept.load(Ordering::Relaxed) {
            true => Undelivered::later(text),
            false if *delivering.pushing.borrow() => failure(FailureClass::Delivery, text).into(),
            false => not_stored(&Status::deadline_exceeded(reason)),
        }
    };
    let ending = async {
        stopped(&mut stop).await;
        let is_kept = delivering.is_kept.load(Ordering::Relaxed);
        sleep(if is_kept { STOPPING_DELIVERY_TIME } else { STOPPING_TIME }).await;
    };
    let expired = async {
        let began = Instant::now();
        sleep(limit).await;
        // A push continues as long as data move, and has a limit of its own. What follows it has its time, too.
        if *delivering.pushing.borrow() {
            let mut pushing = delivering.pushing.subscribe();
            let pushed = timeout(MAX_TRANSFER_TIME, pushing.wait_for(|pushing| !pushing)).await.is_ok();
            sleep(if pushed { limit } else { Duration::ZERO }).await;
        }
        began.elapsed().as_secs()
    };
    tokio::select! {
        done = work => done,
        seconds = expired => Err(late(&format!("it took longer than {seconds} s"))),
        () = ending => Err(late("the attempt had to end")),
    }
}

/// Stores from where another attempt can continue the work of one that runs, unless nothing has changed. `quiet` is held while the
/// repository is looked at. On errors, the checkpoint before stays.
pub(crate) async fn keep_checkpoint(
    caller: &Caller,
    kept: &Kept,
    dirs: &AttemptDirs,
    quiet: &tokio::sync::Mutex<()>,
) -> Result<(), Failure> {
    let failed = |reason: String| failure(FailureClass::Environment, reason);
    let copied = copied(dirs).await.map_err(|broken| failed(broken.reason))?;
    let last = dirs.last_checkpoint.lock().as_ref().map(|last| last.state.clone());
    if copied.is_none() && last.is_some() {
        return Ok(());
    }
    let changes = {
        let _quiet = quiet.lock().await;
        // Perhaps it is being changed: an earlier checkpoint is worth more than one without files.
        changes(dirs).await.map_err(|lost| lost.failure)?.map(|snapshot| snapshot.changes)
    };
    let commit = changes.as_ref().map(|changes| changes.commit.clone()).unwrap_or_default();
    let state = copied.as_ref().map(|copied| (copied.digest, commit));
    if state.is_some() && state == last {
        return Ok(());
    }
    let whole = copied.is_some();
    let look = look(dirs, None, changes.clone().unwrap_or_default(), copied);
    store(caller, kept, dirs, changes, look, whole, &mut Vec::new())
        .await
        .map(drop)
        .map_err(|status| called(&status))
}

/// Returns what has become of the files of an attempt. Without room, a success is none that would lose work. `is_left` is whether
/// changes are not lost: they are pushed next, or stay in the workspace.
pub(super) async fn judged(
    stored: Result<Stored, Status>,
    succeeded: bool,
    look: impl FnOnce() -> Looked + Send + 'static,
    is_left: bool,
    changes: Option<&Changes>,
    notices: &mut Vec<event::Kind>,
) -> Result<Stored, Undelivered> {
    if let Err(status) = &stored
        && status.code() == Code::ResourceExhausted
        && succeeded
        && loses_work(look, is_left, changes).await
    {
        return Err(full(status));
    }
    noted(stored, notices)
}

/// Makes a notice of the error of a control plane that keeps none, or no more: the work counts all the same.
fn noted(stored: Result<Stored, Status>, notices: &mut Vec<event::Kind>) -> Result<Stored, Undelivered> {
    let status = match stored {
        Ok(stored) => return Ok(stored),
        Err(status) => status,
    };
    tracing::warn!(%status, "failed to store artifacts");
    let failed = not_stored(&status);
    if !matches!(status.code(), Code::Unimplemented | Code::ResourceExhausted) {
        return Err(failed);
    }
    notices.push(notice(Severity::High, "artifacts_not_stored", failed.failure.message));
    Ok(Stored::Nowhere)
}

/// Whether the success of an attempt whose files are not stored would delete what it was for: files that were to be kept, and changes
/// that are neither pushed nor left in the workspace.
async fn loses_work(
    look: impl FnOnce() -> Looked + Send + 'static,
    is_left: bool,
    changes: Option<&Changes>,
) -> bool {
    if !is_left && changes.is_some_and(|changes| changes.commit != changes.base_commit) {
        return true;
    }
    let looked = tokio::task::spawn_blocking(look).await;
    looked.is_ok_and(|looked| looked.found.has_files())
}

/// Returns the failure of an attempt for whose files there is no room. An agent that works again earlier would do so in vain.
fn full(status: &Status) -> Undelivered {
    let mut full = not_stored(status);
    full.failure.retry_after = Some(Box::new(FREED_AFTER.into()));
    full
}

/// Returns why the files of an attempt are not stored, and whether they may be later.
fn not_stored(status: &Status) -> Undelivered {
    if status.details() == UNREADABLE {
        return of_disk(failure(FailureClass::Environment, status.message().to_owned()));
    }
    let failure = called(status);
    Undelivered { awaits_storage: failure.of_storage, ..failure.into() }
}

/// Returns the failure of an attempt whose repository cannot be looked at, since its machine fails: perhaps for now, as where others
/// have filled the disk.
pub(super) fn of_disk(failure: Failure) -> Undelivered {
    Undelivered { awaits_storage: true, ..Failure { hint: HINT_DISK.to_owned(), ..failure }.into() }
}

/// Returns the failure of an attempt whose files cannot be stored. Neither the worker nor the task is to blame, unless what the attempt
/// leaves is refused: that of another one would be, too.
fn called(status: &Status) -> Failure {
    let failed = Caller::failure("failed to store the artifacts", status);
    // Its own files are whole. A record may be put back that the control plane cannot read.
    let refused = failed.class() == FailureClass::Invalid && status.code() != Code::DataLoss;
    let class = if refused { FailureClass::Invalid } else { FailureClass::Source };
    let hint = if failed.hint.is_empty() { HINT.to_owned() } else { failed.hint };
    let upload_bytes = rota_client::upload_bytes(status).map(num::to_i64);
    Failure { hint, of_storage: !refused, upload_bytes, ..failure(class, failed.message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_that_refuses_files_is_not_awaited() {
        let awaited = |code| not_stored(&Status::new(code, "")).awaits_storage;
        for code in [
            Code::Unavailable,
            Code::Unauthenticated,
            Code::ResourceExhausted,
            Code::DeadlineExceeded,
            Code::DataLoss,
        ] {
            assert!(awaited(code), "{code:?}");
            assert_eq!(called(&Status::new(code, "")).class(), FailureClass::Source, "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::NotFound, Code::OutOfRange] {
            assert!(!awaited(code), "{code:?}");
            assert_eq!(called(&Status::new(code, "")).class(), FailureClass::Invalid, "{code:?}");
        }
    }

    #[tokio::test]
    async fn changes_that_nothing_else_has_wait_for_room() {
        let changes = Changes { commit: "new".to_owned(), ..Changes::default() };
        for is_left in [true, false] {
            let stored = Err(Status::resource_exhausted("full"));
            let look = || Looked { found: Default::default(), digest: 0 };
            let judged = judged(stored, true, look, is_left, Some(&changes), &mut Vec::new()).await;
            assert_eq!(judged.is_ok_and(|stored| stored == Stored::Nowhere), is_left);
        }
    }

    /// Those of calls that store are those of all others, besides the hint, and damage that is not of what is stored.
    #[test]
    fn refused_lists_have_the_class_of_other_calls() {
        for code in (0..=16).map(Code::from_i32).filter(|code| *code != Code::DataLoss) {
            let status = Status::new(code, "why");
            let expected = Caller::failure("failed to store the artifacts", &status);
            let failed = called(&status);
            assert_eq!((failed.class(), &failed.message), (expected.class(), &expected.message), "{code:?}");
            assert_eq!(failed.hint, HINT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pushes_outlast_the_time_for_uploads() {
        let (_sender, stop) = watch::channel(None);
        let work = || async {
            sleep(2 * MIN_TIME).await;
            Ok::<_, Undelivered>(())
        };
        let delivering = Delivering::default();
        assert!(in_time(MIN_TIME, stop.clone(), &delivering, work()).await.is_err());
        delivering.pushing.send_replace(true);
        assert!(in_time(MIN_TIME, stop.clone(), &delivering, work()).await.is_ok());
        let never = || std::future::pending::<Result<(), Undelivered>>();
        let lost = in_time(MIN_TIME, stop.clone(), &delivering, never()).await.unwrap_err();
        assert_eq!(lost.failure.class(), FailureClass::Delivery, "{lost:?}");
        assert!(!lost.is_kept && !lost.awaits_storage, "the push is repeated for no storage: {lost:?}");
        delivering.is_kept.store(true, Ordering::Relaxed);
        let late = in_time(MIN_TIME, stop.clone(), &delivering, never()).await.unwrap_err();
        assert!(late.is_kept, "{late:?}");
        // The storage that is called after a push is not waited for as long as one.
        let stored = async {
            delivering.pushing.send_replace(false);
            never().await
        };
        let began = Instant::now();
        in_time(MIN_TIME, stop, &delivering, stored).await.unwrap_err();
        assert_eq!(began.elapsed().as_secs(), MIN_TIME.as_secs());
    }
}
