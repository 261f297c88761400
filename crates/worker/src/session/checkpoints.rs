//! Checkpoints of attempts that run.

use std::pin::pin;
use std::time::Duration;

use rota_proto::v1::{Severity, event};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::attempt::AttemptEvent;
use super::deps::AttemptDeps;
use super::handle::AttemptHandle;
use super::releasing::Waits;
use crate::artifacts::{self, Kept};
use crate::runtimes::notice;
use crate::workspace::AttemptDirs;

/// Times that a checkpoint takes until the next one begins, at least.
const PACE: u32 = 10;
/// Time for a checkpoint that has begun before the end of an attempt.
const LAST_CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(15);

/// Does the work of an attempt, of which checkpoints are kept meanwhile. One that has begun at the end is completed: a list that
/// arrives late would replace that of the end.
pub(super) async fn with_checkpoints<T>(
    deps: &AttemptDeps,
    kept: &Kept,
    dirs: Option<&AttemptDirs>,
    events: &mpsc::Sender<event::Kind>,
    quiet: &tokio::sync::Mutex<()>,
    handle: &AttemptHandle,
    work: impl Future<Output = T>,
) -> T {
    let end = CancellationToken::new();
    let work = async {
        let done = work.await;
        end.cancel();
        done
    };
    let (mut work, mut checkpoints) =
        (pin!(work), pin!(checkpoints(deps, kept, dirs, events, quiet, handle, &end)));
    tokio::select! {
        done = &mut work => {
            // One that takes longer is given up.
            let _ = tokio::time::timeout(LAST_CHECKPOINT_TIMEOUT, checkpoints).await;
            done
        }
        () = &mut checkpoints => work.await,
    }
}

/// Keeps checkpoints of an attempt that runs, now and then and when it begins to wait for a person, until its `end`. One that has
/// waited for long enough offers to release its slot.
async fn checkpoints(
    deps: &AttemptDeps,
    kept: &Kept,
    dirs: Option<&AttemptDirs>,
    events: &mpsc::Sender<event::Kind>,
    quiet: &tokio::sync::Mutex<()>,
    handle: &AttemptHandle,
    end: &CancellationToken,
) {
    let interval = deps.checkpoint_interval;
    let Some(dirs) = dirs.filter(|dirs| dirs.checkpoint.is_some() && !interval.is_zero()) else { return };
    let (mut noticed, mut next) = (false, Instant::now() + interval);
    let mut waits = kept.release_after.map(|after| Waits::of(handle, after));
    let mut waiting = handle.waiting.subscribe();
    loop {
        let long_enough = async {
            match &mut waits {
                Some(waits) => waits.long_enough().await,
                None => std::future::pending().await,
            }
        };
        let asked = tokio::select! {
            biased;
            () = end.cancelled() => return,
            asked = long_enough => Some(asked),
            // Nothing changes while the person thinks, which may take longer than the worker lives.
            Ok(()) = waiting.changed() => {
                if waiting.borrow_and_update().is_none() {
                    continue;
                }
                None
            }
            () = sleep_until(next) => None,
        };
        let began = Instant::now();
        // Its git would be frozen as well.
        if handle.is_paused() {
            next = began + interval;
            continue;
        }
        match (artifacts::keep_checkpoint(&deps.caller, kept, dirs, quiet).await, asked) {
            // The session loop is the receiver; it ends with the worker.
            (Ok(()), Some(asked)) => drop(deps.events.send(AttemptEvent::Waits(handle.key.clone(), asked))),
            (Ok(()), None) => {}
            (Err(failed), _) => {
                tracing::warn!(error = failed.message, "failed to keep a checkpoint");
                if !std::mem::replace(&mut noticed, true) {
                    let _ = events.try_send(notice(Severity::Medium, "checkpoint_failed", failed.message));
                }
            }
        }
        // Large ones are rarer.
        next = Instant::now() + interval.max(began.elapsed() * PACE);
    }
}
