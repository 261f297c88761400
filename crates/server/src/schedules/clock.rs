//! Wall clock of schedules. Tests set it by hand, which also wakes whatever sleeps by it.

use std::time::Duration;

use rota_core::Timestamp;
use tokio::sync::watch;

/// Bounds each sleep: the timers of the system stand still while the machine sleeps, and the clock may be set.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Source of the time of day.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Option<watch::Receiver<Timestamp>>);

impl WallClock {
    /// Returns a clock that a test sets.
    pub fn manual(time: watch::Receiver<Timestamp>) -> Self {
        Self(Some(time))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(crate::clock::now, |time| *time.borrow())
    }

    /// Sleeps until a time has come, or may have come; without a time, until the clock is set.
    pub(crate) async fn sleep_until(&self, at: Option<Timestamp>) {
        match (&self.0, at) {
            (None, Some(at)) => tokio::time::sleep(at.since(self.now()).min(MAX_SLEEP)).await,
            (None, None) => std::future::pending().await,
            (Some(time), at) => {
                let mut time = time.clone();
                let now = *time.borrow_and_update();
                if at.is_none_or(|at| at > now) && time.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}
