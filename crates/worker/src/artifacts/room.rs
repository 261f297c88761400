//! Waits for the storage: an attempt whose files it does not take keeps its directories, and repeats only the upload. Its agent has
//! worked, and would have to do so again.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use rota_proto::times::UPLOAD_DELAY;
use rota_proto::v1::{Delivery, Failure, FailureClass, Severity, event};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep};

use super::calls::Caller;
use super::keep::{Kept, keep};
use super::left::SlotRelease;
use super::prepared::Prepared;
use crate::git::{Undelivered, Work};
use crate::report::notice;
use crate::supervise::{Stop, stopped};
use crate::workspace::AttemptDirs;

const MIN_DELAY: Duration = Duration::from_secs(2);
/// Time for which the worker's own machine is waited for, in a slot. Then another attempt does the work again.
const MAX_MACHINE_WAIT: Duration = Duration::from_secs(30 * 60);

/// Returns the waits between uploads. Their number has no limit here: the control plane ends attempts that take too long.
pub(super) fn delays() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(MIN_DELAY)
        .with_max_delay(UPLOAD_DELAY)
        .with_jitter()
        .without_max_times()
}

/// Stores and delivers what an attempt leaves, like [`keep`]. Of one that has succeeded, waits for the storage, and for the disk of the
/// worker, until it is asked to end; `note` gets a notice of the first failure.
pub(crate) async fn keep_until_stored(
    caller: &Caller,
    kept: Kept,
    dirs: &AttemptDirs,
    work: Option<Work>,
    stop: watch::Receiver<Option<Stop>>,
    slot: &SlotRelease,
    note: impl Fn(event::Kind),
) -> Result<(Vec<event::Kind>, Option<Delivery>), Undelivered> {
    let (mut noted, ending, wanted) = (false, stop.clone(), slot.newly_wanted());
    let began = Instant::now();
    let prepared = OnceCell::<Prepared>::new();
    (|| keep(caller, kept.clone(), dirs, work.clone(), stop.clone(), slot, &prepared))
        .retry(delays())
        // Deliveries of earlier work are repeated by the control plane, in attempts with directories of their own.
        .when(|failed| work.is_some() && stop.borrow().is_none() && waits(failed, began.elapsed()))
        .notify(|failed, retry_delay| {
            let reason = &failed.failure.message;
            let what = match is_of_machine(&failed.failure) {
                true => "what an attempt left cannot be read, retrying",
                false => "the storage does not take what an attempt left, retrying",
            };
            tracing::info!(reason, ?retry_delay, "{what}");
            if !std::mem::replace(&mut noted, true) {
                note(waiting(&failed.failure));
            }
        })
        .sleep(move |delay| {
            let (mut stop, wanted) = (ending.clone(), Arc::clone(&wanted));
            async move {
                tokio::select! {
                    () = sleep(delay) => {}
                    () = wanted.notified() => {}
                    _ = stopped(&mut stop) => {}
                }
            }
        })
        .await
}

/// Whether another try makes sense after one that has failed, so long after the first.
pub(super) fn waits(failed: &Undelivered, waited: Duration) -> bool {
    failed.awaits_storage && (!is_of_machine(&failed.failure) || waited < MAX_MACHINE_WAIT)
}

fn is_of_machine(failed: &Failure) -> bool {
    failed.class() == FailureClass::Environment
}

/// Returns the notice of files that are not stored yet. Where there is no room, a later time for the next attempt is known.
fn waiting(failed: &Failure) -> event::Kind {
    let code = match failed.retry_after {
        _ if is_of_machine(failed) => "changes_waiting",
        Some(_) => "artifacts_full",
        None => "artifacts_waiting",
    };
    notice(Severity::High, code, format!("{}; {}", failed.message, failed.hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::failure;

    #[test]
    fn waits_for_room_name_what_makes_some() {
        let hint = "delete old tasks".to_owned();
        let full = Failure { hint, ..failure(FailureClass::Source, "the quota is reached") };
        let event::Kind::Notice(notice) = waiting(&full) else { panic!("no notice") };
        assert_eq!(notice.message, "the quota is reached; delete old tasks");
    }
    #[test]
    fn machines_are_not_waited_for_as_long_as_storages() {
        let failed = |class| Undelivered { awaits_storage: true, ..failure(class, "").into() };
        for (class, late) in [(FailureClass::Environment, false), (FailureClass::Source, true)] {
            assert!(waits(&failed(class), Duration::ZERO));
            assert_eq!(waits(&failed(class), MAX_MACHINE_WAIT), late, "{class:?}");
        }
        assert!(!waits(&failure(FailureClass::Environment, "").into(), Duration::ZERO));
    }
}
