//! A fact that may change with every commit, relayed to its waiters at most once per interval. To mark it costs the same
//! for one waiter and for thousands.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Least time between two wake-ups of the waiters.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Relays changes. The first after a pause is relayed immediately, those within the interval after it together at its end.
#[derive(Debug)]
pub(crate) struct Pulse {
    marked: Notify,
    relayed: watch::Sender<()>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { marked: Notify::new(), relayed: watch::channel(()).0 }
    }
}

impl Pulse {
    /// Notes a change, which must be visible already.
    pub(crate) fn mark(&self) {
        self.marked.notify_one();
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.relayed.subscribe()
    }

    /// Relays changes until `stop` is cancelled.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let relay = async {
            loop {
                self.marked.notified().await;
                self.relayed.send_replace(());
                tokio::time::sleep(MIN_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(relay).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rota_telemetry::{OnExit, spawn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn marks_within_interval_wake_once() {
        let pulse = Arc::new(Pulse::default());
        let mut waiter = pulse.subscribe();
        let relay = Arc::clone(&pulse);
        let _relay = spawn("relay", OnExit::Done, async move { relay.run(CancellationToken::new()).await });
        let began = tokio::time::Instant::now();
        pulse.mark();
        waiter.changed().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO, "the first change must not wait");
        for _ in 0..1000 {
            pulse.mark();
        }
        waiter.changed().await.unwrap();
        assert_eq!(began.elapsed(), MIN_INTERVAL);
        tokio::time::sleep(10 * MIN_INTERVAL).await;
        assert!(!waiter.has_changed().unwrap(), "changes were relayed one by one");
    }
}
