//! Attempts that hold no slot any more, since the storage is away: their programs have ended, and what they left is on the disk. Also
//! those of an earlier process of the worker.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use rota_proto::times::DEFAULT_CANCEL_GRACE;
use rota_proto::v1::{Severity, WorkEnded, event};
use rota_proto::worker::v1::{Cancelled, Result as AttemptResult, result};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::attempt::{AttemptEvent, AttemptKey, timestamp};
use super::deps::AttemptDeps;
use super::handle::{AttemptHandle, StopReason};
use super::outbox::{Bounds, Outbox};
use super::worker::{AttemptEntry, Worker};
use crate::artifacts::{self, LaterEnd, SlotRelease};
use crate::report::notice;
use crate::workspace::{AttemptDirs, Left};

/// Attempts of a worker that store without a slot. Further ones keep theirs, so that a storage that is away for long does not fill the
/// disk.
pub(super) const MAX_STORING: usize = 8;

/// Time in which files are described that are to be left, unless they are being delivered. The description waits until the file system
/// has them, to which neighbours write, too.
const DESCRIPTION_TIMEOUT: Duration = Duration::from_secs(20);

/// What an attempt of an earlier process has left.
pub(super) struct LeftBehind {
    left: Left,
    /// Taken over before another attempt gets its workspace.
    dirs: AttemptDirs,
    /// Whether the workspace still has what the attempt left.
    is_whole: bool,
    /// None of those that are more than may store without a slot: their files are here all the same.
    permit: Option<OwnedSemaphorePermit>,
}

/// Files of an attempt that are being stored.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    /// Whether they are those of a success, which the next process of the worker can store.
    can_wait: bool,
    /// Cancelled once they are left to that.
    leaves: CancellationToken,
}

impl Keeping {
    pub(super) fn new(can_wait: bool) -> Self {
        Self { can_wait, leaves: CancellationToken::new() }
    }
}

/// Has an attempt leave its files to the next process of the worker. Returns whether it can.
pub(super) fn leave(handle: &AttemptHandle) -> bool {
    let keeping = handle.lock().keeping.clone().filter(|keeping| keeping.can_wait && !handle.is_stopping());
    keeping.is_some_and(|keeping| {
        keeping.leaves.cancel();
        true
    })
}

/// A write of a result, in the background: whether the disk has it since.
pub(super) type Written = Shared<BoxFuture<'static, bool>>;

/// Starts to write a result. One that fails is repeated.
fn write(
    key: AttemptKey,
    is_repeated: bool,
    write: impl FnOnce() -> io::Result<bool> + Send + 'static,
) -> Written {
    let written = tokio::task::spawn_blocking(move || {
        write().unwrap_or_else(|error| {
            let (task, fence) = (&*key.task, key.fence);
            match is_repeated {
                true => tracing::debug!(task, fence, %error, "failed to write a result again"),
                false => tracing::warn!(
                    task,
                    fence,
                    %error,
                    "failed to write a result, which is lost if the worker ends before it is written or delivered"
                ),
            }
            false
        })
    });
    written.map(|written| written.unwrap_or(false)).boxed().shared()
}

/// Returns how a write has ended, if it has.
fn written(on_disk: &Written) -> Option<bool> {
    on_disk.clone().now_or_never()
}

/// Removes what was written, once it is.
fn after(on_disk: Written, remove: impl FnOnce() + Send + 'static) {
    match written(&on_disk) {
        Some(true) => remove(),
        Some(false) => {}
        None => {
            spawn("forget result", OnExit::Done, async move {
                if on_disk.await {
                    remove();
                }
            });
        }
    }
}

fn released(deps: &AttemptDeps) -> event::Kind {
    let outlives_worker = !deps.temporary_state;
    event::Kind::WorkEnded(WorkEnded { slot_released: true, outlives_worker })
}

/// Awaits what stores the files of an attempt, and releases its slot if that takes long, or there is no session, or the worker is to
/// end. Returns nothing if the worker ends before.
pub(super) async fn without_slot<T>(
    deps: &AttemptDeps,
    key: &AttemptKey,
    handle: &AttemptHandle,
    slot: &SlotRelease,
    result: impl FnOnce() -> AttemptResult,
    push: impl Fn(event::Kind),
    keep: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let leaves = handle.lock().keeping.clone().map(|keeping| keeping.leaves).unwrap_or_default();
    let has_waited = async {
        let is_away = async {
            // The sender is here.
            let _ = deps.connected.subscribe().wait_for(|connected| !connected).await;
        };
        tokio::select! {
            () = sleep(deps.storing_timeout) => {}
            // All would be lost if the worker ended as well.
            () = is_away, if !deps.temporary_state => {}
        }
        deps.storing.acquire().await
    };
    let release = async {
        let _permit = tokio::select! {
            permit = has_waited => permit.ok(),
            () = leaves.cancelled() => None,
        };
        let mut result = result();
        // What a later process cannot send.
        result.last_attempt_seq = handle.lock().outbox.last();
        slot.want(result);
        let late = async {
            leaves.cancelled().await;
            sleep(DESCRIPTION_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            () = slot.described() => {}
            () = late => {
                handle.request_stop(StopReason::WorkerShutdown, DEFAULT_CANCEL_GRACE);
                return std::future::pending().await;
            }
        }
        // Before the control plane learns of the slot, and assigns it. Fails only when the worker is exiting.
        let _ = deps.events.send(AttemptEvent::Storing(key.clone()));
        push(released(deps));
        deps.ends.cancelled().await;
    };
    tokio::select! {
        biased;
        kept = keep => Some(kept),
        () = release => None,
    }
}

impl Worker {
    /// Takes over what attempts of an earlier process have left.
    pub(super) fn find_left(&mut self) {
        for left in self.deps.root.left() {
            let permit = Arc::clone(&self.deps.storing).try_acquire_owned().ok();
            let key = AttemptKey { task: left.result.task_id.as_str().into(), fence: left.result.fence };
            let outbox =
                Outbox::new(self.deps.root.state().to_owned(), Bounds::of_worker(self.options.slots));
            let handle = Arc::new(AttemptHandle::new(outbox, key.clone(), self.deps.events.clone()));
            handle.lock().keeping = Some(Keeping::new(false));
            handle.finish();
            let span = tracing::info_span!("attempt", task = %key.task, fence = key.fence);
            // Its agent takes no input.
            let mut entry = AttemptEntry::new(handle, mpsc::channel(1).0, span);
            entry.storing = true;
            let (dirs, is_whole) = self.deps.root.take_over(&left);
            entry.left = Some(Box::new(LeftBehind { left, dirs, is_whole, permit }));
            self.attempts.insert(key, entry);
        }
    }

    /// Writes results that no session takes now to the disk: the work is done, and would be done again if this process ended.
    pub(super) fn leave_results(&mut self) {
        if *self.deps.connected.borrow() || self.deps.temporary_state {
            return;
        }
        for (key, entry) in &mut self.attempts {
            let (is_stale, last) = {
                let state = entry.handle.lock();
                (state.stop_reason == Some(StopReason::Stale), state.outbox.last())
            };
            let Some(mut result) = entry.result.clone().filter(|_| !is_stale) else { continue };
            result.last_attempt_seq = last;
            let earlier = entry.on_disk.as_ref().map(written);
            if matches!(earlier, Some(None | Some(true))) {
                continue;
            }
            let (deps, namespace) = (Arc::clone(&self.deps), self.options.namespace.clone());
            entry.on_disk = Some(write(key.clone(), earlier.is_some(), move || {
                deps.root.leave_result(&namespace, *result)
            }));
        }
    }

    /// Forgets an attempt whose result the control plane has, or does not want.
    pub(super) fn forget(&mut self, key: &AttemptKey) {
        let Some(on_disk) = self.attempts.remove(key).and_then(|entry| entry.on_disk) else { return };
        let (deps, key) = (Arc::clone(&self.deps), key.clone());
        after(on_disk, move || deps.root.forget_result(&key.task, key.fence));
    }

    /// Notes that an attempt holds no slot any more.
    pub(super) fn release_slot(&mut self, key: &AttemptKey) {
        if let Some(entry) = self.attempts.get_mut(key)
            && !std::mem::replace(&mut entry.storing, true)
        {
            self.running -= 1;
            entry
                .span
                .in_scope(|| tracing::info!("the slot is free: only what the attempt left is to be stored"));
        }
    }

    /// Stores what an attempt of an earlier process has left, which counts: its log has its events up to `seq`.
    pub(super) fn store_left(&mut self, key: &AttemptKey, seq: i64) {
        let Some(entry) = self.attempts.get_mut(key) else { return };
        let Some(behind) = entry.left.take() else { return };
        entry.handle.lock().outbox.continue_after(seq);
        let (deps, handle, key) = (Arc::clone(&self.deps), Arc::clone(&entry.handle), key.clone());
        spawn("attempt", OnExit::Done, async move {
            let LeftBehind { left, dirs, is_whole, permit: _permit } = *behind;
            let push = |kind| {
                let event =
                    rota_proto::v1::Event { time: Some(timestamp()), kind: Some(kind), ..Default::default() };
                handle.push(event);
            };
            // The control plane may not have learned of it.
            push(released(&deps));
            let lost = left.result.last_attempt_seq - seq;
            if lost > 0 {
                let text =
                    format!("the worker's process ended before the last {lost} entries of the log were sent");
                push(notice(Severity::Medium, "log_cut", &text));
            }
            let stop = handle.stop_signal();
            let stored = artifacts::store_left(&deps.caller, &left, &dirs, is_whole, deps.keep_for, stop);
            let LaterEnd { notices, result, only_here } = tokio::select! {
                stored = stored => stored,
                () = deps.ends.cancelled() => return,
            };
            notices.into_iter().for_each(push);
            if !only_here {
                dirs.clear(matches!(result.kind, Some(result::Kind::Succeeded(_))));
            }
            let _ = deps.events.send(AttemptEvent::Ended(key, Box::new(result)));
        });
    }

    /// Discards what an attempt of an earlier process has left, which counts no more. Returns whether it is one.
    pub(super) fn discard_left(&mut self, key: &AttemptKey) -> bool {
        let Some(entry) = self.attempts.get_mut(key) else { return false };
        let Some(behind) = entry.left.take() else { return false };
        behind.dirs.clear(false);
        let kind = Some(result::Kind::Cancelled(Cancelled { by: "its own end".to_owned() }));
        entry.result = Some(Box::new(AttemptResult { kind, ..behind.left.result }));
        entry.ended = true;
        self.queue(key);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;

    use tokio::sync::oneshot;

    use super::*;

    fn key() -> AttemptKey {
        AttemptKey { task: "task".into(), fence: 1 }
    }

    #[tokio::test]
    async fn results_are_removed_after_their_write() {
        let (finish, finished) = blocking::channel();
        let on_disk = write(key(), false, move || Ok(finished.recv().unwrap()));
        assert_eq!(written(&on_disk), None);
        let (removed, mut is_removed) = oneshot::channel();
        after(on_disk, move || removed.send(()).unwrap());
        assert!(is_removed.try_recv().is_err(), "it would be written afterwards");
        finish.send(true).unwrap();
        is_removed.await.unwrap();
    }

    #[tokio::test]
    async fn results_that_were_not_written_are_not_removed() {
        for failed in [Ok(false), Err(io::Error::other("full"))] {
            let on_disk = write(key(), false, move || failed);
            assert!(!on_disk.clone().await);
            assert_eq!(written(&on_disk), Some(false), "it is to be written again");
            after(on_disk, || panic!("the directory has the only copy of the work"));
        }
    }
}
