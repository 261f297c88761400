//! Delay between restarts of a pool whose workers crash. Receives time as a value.

use std::time::Duration;

use rota_core::retry;
use rota_core::scaling::STABLE_AFTER;
use tokio::time::Instant;

const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Restarts of one pool are rare and local: no jitter, the whole backoff is waited for.
const FULL_BACKOFF: f64 = 1.0;

/// Consecutive crashes of a pool and the resulting pause.
#[derive(Debug, Default)]
pub(crate) struct RestartBackoff {
    crashes: u32,
    until: Option<Instant>,
}

impl RestartBackoff {
    /// Records a crash after the worker had run for `lifetime`. Returns the delay before the next start.
    pub(crate) fn crashed(&mut self, now: Instant, lifetime: Duration) -> Duration {
        if lifetime >= STABLE_AFTER {
            self.crashes = 0;
        }
        self.crashes = self.crashes.saturating_add(1);
        let delay = retry::backoff(INITIAL_BACKOFF, MAX_BACKOFF, self.crashes, FULL_BACKOFF);
        self.until = Some(now + delay);
        delay
    }

    /// Ends the pause: a worker connected.
    pub(crate) fn connected(&mut self) {
        self.until = None;
    }

    /// Forgets all crashes: the spec changed, so the next start may succeed.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn may_start(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_to_its_maximum() {
        let mut backoff = RestartBackoff::default();
        let now = Instant::now();
        assert!(backoff.may_start(now));
        let short = Duration::from_millis(5);
        let delays: Vec<_> = (0..8).map(|_| backoff.crashed(now, short).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(!backoff.may_start(now) && backoff.may_start(now + MAX_BACKOFF));
    }

    #[tokio::test(start_paused = true)]
    async fn stable_worker_resets_backoff() {
        let mut backoff = RestartBackoff::default();
        let now = Instant::now();
        backoff.crashed(now, Duration::ZERO);
        backoff.crashed(now, Duration::ZERO);
        assert_eq!(backoff.crashed(now, STABLE_AFTER), INITIAL_BACKOFF);
        backoff.reset();
        assert!(backoff.may_start(now));
    }
}
