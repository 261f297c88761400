//! Background task that lets due tasks look at the clock. Sleeps until the next one is due.

use std::time::Duration;

use rota_core::Timestamp;
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::store_client::StoreClient;

/// Due tasks that one transaction handles at most.
const MAX_TICKED: usize = 500;
/// Bounds the sleep, so that a clock that was set is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// Least delay after a tick that found nothing due, and after a failure.
const IDLE_DELAY: Duration = Duration::from_secs(1);

/// Ticks until `stop`. `due` holds the time of the next task, by the commits applied so far.
pub(super) async fn run(
    store: StoreClient,
    mut due: watch::Receiver<Option<Timestamp>>,
    stop: CancellationToken,
    monitor: TaskMonitor,
) {
    loop {
        let next = *due.borrow_and_update();
        let sleep = next.map_or(MAX_SLEEP, |at| at.since(now()).min(MAX_SLEEP));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = due.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            () = tokio::time::sleep(sleep) => {}
        }
        if next.is_none_or(|at| at > now()) {
            continue;
        }
        let activation = monitor.activate();
        let ticked = match store.tick(MAX_TICKED).await {
            Ok(count) => {
                activation.succeeded();
                count
            }
            Err(status) => {
                activation.failed(status.message());
                0
            }
        };
        // The commit brings the next time; until it has been applied there is nothing to do.
        if ticked < MAX_TICKED {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = due.changed() => {}
                () = tokio::time::sleep(IDLE_DELAY) => {}
            }
        }
    }
}
