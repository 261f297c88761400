//! Checkpoints of attempts that run.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::report::notice;
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

/// Keeps checkpoints of an attempt that runs until its `end`. One that has waited for a person for long enough offers to release its
/// slot.
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
    let noticed = &AtomicBool::new(false);
    let waits = kept.release_after.map(|after| Waits::of(handle, after));
    let keep = move |asked| async move {
        match (artifacts::keep_checkpoint(&deps.caller, kept, dirs, quiet).await, asked) {
            // The session loop is the receiver; it ends with the worker.
            (Ok(()), Some(asked)) => {
                drop(deps.events.send(AttemptEvent::Waits(handle.key.clone(), asked)));
            }
            (Ok(()), None) => {}
            (Err(failed), _) => {
                tracing::warn!(error = failed.message, "failed to keep a checkpoint");
                if !noticed.swap(true, Ordering::Relaxed) {
                    let _ = events.try_send(notice(Severity::Medium, "checkpoint_failed", failed.message));
                }
            }
        }
    };
    repeat(interval, handle, waits, end, keep).await;
}

/// Calls `keep` now and then, and soon after the attempt has begun to wait for a person, until its `end`; with the open requests once
/// it has waited for long enough.
async fn repeat<F: Future<Output = ()>>(
    interval: Duration,
    handle: &AttemptHandle,
    mut waits: Option<Waits<'_>>,
    end: &CancellationToken,
    keep: impl Fn(Option<Vec<String>>) -> F,
) {
    let mut next = Instant::now() + interval;
    // What a wait has to keep, and from when on.
    let (mut unkept, mut paced) = (false, Instant::now());
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
            // One that was answered before a checkpoint was due needs none.
            Ok(()) = waiting.changed() => {
                unkept = waiting.borrow_and_update().is_some();
                continue;
            }
            // Nothing changes while the person thinks, which may take longer than the worker lives.
            () = sleep_until(paced), if unkept => None,
            () = sleep_until(next) => None,
        };
        let began = Instant::now();
        // Its git would be frozen as well.
        if handle.is_paused() {
            (next, paced) = (began + interval, began + interval);
            continue;
        }
        keep(asked).await;
        unkept = false;
        // Large ones are rarer.
        let ended = Instant::now();
        paced = ended + began.elapsed() * PACE;
        next = paced.max(ended + interval);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rota_proto::v1::{Event, InputReceived, InputRequest, TaskInput};
    use tokio::time::sleep;

    use super::*;
    use crate::session::attempt::AttemptKey;
    use crate::session::outbox::{Bounds, Outbox};

    const INTERVAL: Duration = Duration::from_secs(600);

    fn push(handle: &Arc<AttemptHandle>, kind: event::Kind) {
        handle.push(Event { kind: Some(kind), ..Event::default() });
    }

    fn ask(handle: &Arc<AttemptHandle>, id: &str) {
        let asked = InputRequest { request_id: id.to_owned(), ..InputRequest::default() };
        push(handle, event::Kind::InputRequest(asked));
    }

    fn answer(handle: &Arc<AttemptHandle>, id: &str) {
        let input = Some(TaskInput { request_id: id.to_owned(), ..TaskInput::default() });
        push(handle, event::Kind::InputReceived(InputReceived { input, ..InputReceived::default() }));
    }

    /// Returns the times at which checkpoints begin, of a second each, while a person works.
    async fn begun(person: impl AsyncFnOnce(&Arc<AttemptHandle>)) -> Vec<u64> {
        let outbox = Outbox::new(std::env::temp_dir(), Bounds::default());
        let key = AttemptKey { task: "task".into(), fence: 1 };
        let handle = Arc::new(AttemptHandle::new(outbox, key, mpsc::unbounded_channel().0));
        let (end, began) = (CancellationToken::new(), Instant::now());
        let times = parking_lot::Mutex::new(Vec::new());
        let keep = |_| {
            times.lock().push(began.elapsed().as_secs());
            sleep(Duration::from_secs(1))
        };
        let person = async {
            person(&handle).await;
            end.cancel();
        };
        tokio::join!(repeat(INTERVAL, &handle, None, &end, keep), person);
        times.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn quick_answers_cause_few_checkpoints() {
        let times = begun(async |handle| {
            for number in 0..20 {
                ask(handle, &number.to_string());
                sleep(Duration::from_millis(990)).await;
                answer(handle, &number.to_string());
                sleep(Duration::from_millis(10)).await;
            }
        });
        assert_eq!(times.await, [0, 11]);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_kept_once_paced() {
        let times = begun(async |handle| {
            ask(handle, "first");
            sleep(Duration::from_secs(5)).await;
            answer(handle, "first");
            sleep(Duration::from_secs(30)).await;
            ask(handle, "second");
            sleep(Duration::from_secs(3)).await;
            answer(handle, "second");
            ask(handle, "third");
            sleep(Duration::from_secs(100)).await;
        });
        assert_eq!(times.await, [0, 35, 46]);
    }
}
