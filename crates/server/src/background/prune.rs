//! Background task that removes expired records, a few per transaction.

use std::time::Duration;

use rota_core::Timestamp;
use rota_store::Prune;
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store_client::StoreClient;

const PRUNE_INTERVAL: Duration = Duration::from_secs(600);
/// How long a worker's epoch is kept after its last session, so that nothing older can act for it.
const EPOCH_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Records in one transaction: few, so that other commands hardly wait.
const MAX_PRUNED: usize = 200;

/// Prunes until `stop`. `retention` is how long ended tasks are kept, by the clock of the store; `None` keeps them.
pub(super) async fn run(
    store: StoreClient,
    retention: Option<Duration>,
    stop: CancellationToken,
    monitor: TaskMonitor,
) {
    // Removals are final: a clock that is set forward, even by mistake, must not make every record old.
    let (start, monotonic) = (store.now(), Instant::now());
    let mut ticks = tokio::time::interval(PRUNE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let at = trusted_time(store.now(), start, monotonic.elapsed());
        let ended_before = retention.map(|retention| at - retention);
        let prune = Prune { ended_before, left_before: at - EPOCH_RETENTION, limit: MAX_PRUNED };
        loop {
            // An activation for each transaction: a long backlog must not look stuck.
            let activation = monitor.activate();
            match store.prune(prune).await {
                Ok((_, more)) if more && !stop.is_cancelled() => activation.succeeded(),
                Ok(_) => break activation.succeeded(),
                Err(status) => {
                    tracing::warn!(%status, "pruning failed");
                    break activation.failed(status.message());
                }
            }
        }
    }
}

/// Returns the time, but never one that is later than the time that has passed since the start allows.
fn trusted_time(now: Timestamp, start: Timestamp, passed: Duration) -> Timestamp {
    now.min(start + passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_set_forward_prunes_nothing_early() {
        let start = Timestamp(1_000_000_000_000_000);
        let (hour, year) = (Duration::from_secs(3600), Duration::from_secs(365 * 24 * 3600));
        assert_eq!(trusted_time(start + year, start, hour), start + hour);
        assert_eq!(trusted_time(start + hour, start, hour), start + hour);
        assert_eq!(trusted_time(start - year, start, hour), start - year);
    }
}
