//! When a pool whose workers crash may start the next one. Knows time as a value.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A worker that lived this long did not fail to start.
const STEADY: Duration = Duration::from_secs(60);

/// A pool's crashes.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    crashes: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// A worker crashed after it had lived for so long. Returns the wait before the next start.
    pub(crate) fn crashed(&mut self, now: Instant, lived: Duration) -> Duration {
        if lived >= STEADY {
            self.crashes = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.crashes.min(10)).min(LONGEST);
        self.crashes = self.crashes.saturating_add(1);
        self.until = Some(now + wait);
        wait
    }

    /// A worker came up.
    pub(crate) fn connected(&mut self) {
        self.until = None;
    }

    /// A spec was changed: what failed before may do now.
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
    async fn waits_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        assert!(backoff.may_start(now));
        let short = Duration::from_millis(5);
        let waits: Vec<_> = (0..8).map(|_| backoff.crashed(now, short).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(!backoff.may_start(now) && backoff.may_start(now + LONGEST));
        assert_eq!(backoff.crashed(now, STEADY), FIRST);
        backoff.reset();
        assert!(backoff.may_start(now));
    }
}
