//! Background task that lets due tasks look at the clock. Sleeps until the next one is due.

use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use rota_store::Tick;
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::scheduler::Scheduler;
use crate::store_client::StoreClient;

/// Due tasks that one transaction handles at most.
const MAX_TICKED: usize = 500;
/// Bounds the sleep, so that a clock that was set is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// Least delay after a tick that found nothing due, and after a failure.
const IDLE_DELAY: Duration = Duration::from_secs(1);

/// Least difference between the clocks that counts as a jump.
const MIN_JUMP: Duration = Duration::from_secs(5);

/// Compares the clock of the store with one that stands still while the machine sleeps.
struct Drift {
    wall: Timestamp,
    monotonic: Instant,
}

impl Drift {
    fn new(wall: Timestamp, monotonic: Instant) -> Self {
        Self { wall, monotonic }
    }

    /// Returns by how much the store's clock is ahead, if it jumped.
    fn ahead(&self, wall: Timestamp, monotonic: Instant) -> Option<Duration> {
        let passed = monotonic.saturating_duration_since(self.monotonic);
        wall.since(self.wall).checked_sub(passed).filter(|ahead| *ahead >= MIN_JUMP)
    }

    /// Returns by how much the store's clock was set back, if it was. That of a database runs an eighth slower after that.
    fn behind(&self, wall: Timestamp, monotonic: Instant) -> Option<Duration> {
        let passed = monotonic.saturating_duration_since(self.monotonic);
        Some((self.wall + passed).since(wall)).filter(|behind| *behind >= MIN_JUMP + passed / 8)
    }

    fn is_ahead(&self, wall: Timestamp, monotonic: Instant) -> bool {
        self.ahead(wall, monotonic).is_some()
    }

    /// Returns the jump since the last call.
    fn jump(&mut self, wall: Timestamp, monotonic: Instant) -> Option<Duration> {
        let ahead = self.ahead(wall, monotonic);
        *self = Self::new(wall, monotonic);
        ahead
    }
}

/// Ticks until `stop`. `due` holds the time of the next task by the clock of the store, by the commits applied so far. After a
/// failed write, nothing is judged for `grace`: first the workers report what they could not meanwhile.
pub(super) async fn run(
    store: StoreClient,
    scheduler: Arc<Scheduler>,
    mut due: watch::Receiver<Option<Timestamp>>,
    grace: Duration,
    stop: CancellationToken,
    monitor: TaskMonitor,
) {
    let now = || store.now();
    let mut drift = Drift::new(now(), Instant::now());
    loop {
        if let Some(by) = drift.behind(now(), Instant::now()) {
            tracing::warn!(?by, "the clock was set back: what is due by it comes later");
        }
        if let Some(by) = drift.jump(now(), Instant::now()) {
            tracing::warn!(
                ?by,
                "the clock jumped forward, as after a suspend: moving the deadlines of running tasks"
            );
            while let Err(status) = store.clock_jumped(by).await {
                tracing::warn!(%status, "failed to move deadlines, retrying");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(IDLE_DELAY) => {}
                }
            }
        }
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
        // Until the commit, the clock may jump again: nothing is judged by a later time.
        let at = now();
        if next.is_none_or(|next| next > at) || drift.is_ahead(at, Instant::now()) {
            continue;
        }
        if let Some(until) = store.write_health().held_until(grace) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(until) => {}
            }
            continue;
        }
        let activation = monitor.activate();
        let tick = Tick { limit: MAX_TICKED, at: Some(at), disconnected: scheduler.disconnected() };
        let ticked = match store.tick(tick).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_reported_once() {
        let (wall, start) = (Timestamp(1_000_000_000_000_000), Instant::now());
        let after = |seconds| Duration::from_secs(seconds);
        let mut drift = Drift::new(wall, start);
        assert_eq!(drift.jump(wall + after(31), start + after(30)), None);
        // Two hours of sleep within thirty seconds.
        let (late, now) = (wall + after(7261), start + after(60));
        assert!(drift.is_ahead(late, now));
        assert_eq!(drift.jump(late, now), Some(after(7200)));
        assert_eq!(drift.jump(late, now), None);
        // Set back, by more than the time that has passed or by less; a few seconds are none.
        assert_eq!(drift.behind(wall, now + after(30)), Some(after(7291)));
        assert_eq!(drift.behind(late + after(20), now + after(30)), Some(after(10)));
        assert_eq!(drift.behind(late + after(26), now + after(30)), None);
        assert_eq!(drift.jump(wall, now + after(30)), None);
        assert_eq!(drift.behind(wall + after(30), now + after(60)), None);
    }
}
