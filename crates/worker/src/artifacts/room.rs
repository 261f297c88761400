//! Waits for room: an attempt whose files have none keeps its directories and its slot, and repeats only the upload. Its agent has
//! worked, and would have to do so again.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use rota_proto::v1::{Delivery, Failure, event};
use tokio::sync::watch;
use tokio::time::sleep;

use super::calls::Caller;
use super::keep::{Kept, keep};
use crate::git::{Undelivered, Work};
use crate::runtimes::{Stop, stopped};
use crate::workspace::AttemptDirs;

const MIN_DELAY: Duration = Duration::from_secs(2);
const MAX_DELAY: Duration = Duration::from_secs(300);
/// Time in which a person can make room, also overnight; the control plane ends the attempt after 24 hours.
const MAX_WAIT: Duration = Duration::from_secs(12 * 3600);

/// Stores and delivers what an attempt leaves, like [`keep`], and waits for room until the attempt is asked to end. `note` is
/// called at the first failure.
pub(crate) async fn keep_with_room(
    caller: &Caller,
    kept: Kept,
    dirs: &AttemptDirs,
    work: Option<Work>,
    limit: Duration,
    stop: watch::Receiver<Option<Stop>>,
    note: impl Fn(&Failure),
) -> Result<(Vec<event::Kind>, Option<Delivery>), Undelivered> {
    let delays = ExponentialBuilder::default()
        .with_min_delay(MIN_DELAY)
        .with_max_delay(MAX_DELAY)
        .with_total_delay(Some(MAX_WAIT))
        .with_jitter()
        .without_max_times();
    let (mut noted, ending) = (false, stop.clone());
    (|| keep(caller, kept.clone(), dirs, work.clone(), limit, stop.clone()))
        .retry(delays)
        .when(|failed| is_full(&failed.failure) && stop.borrow().is_none())
        .notify(|failed, _| {
            if !std::mem::replace(&mut noted, true) {
                note(&failed.failure);
            }
        })
        .sleep(move |delay| {
            let mut stop = ending.clone();
            async move {
                tokio::select! {
                    () = sleep(delay) => {}
                    _ = stopped(&mut stop) => {}
                }
            }
        })
        .await
}

/// Whether there was no room: only then a later time for the next attempt is known.
fn is_full(failed: &Failure) -> bool {
    failed.of_storage && failed.retry_after.is_some()
}
