//! Arrival schedule of an open loop: the intended start of each call, whether or not earlier ones have been answered.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

/// Calls at a fixed interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) start: Instant,
    pub(crate) interval: Duration,
    pub(crate) count: u64,
}

impl Schedule {
    /// Returns the intended start of a call, by its index from 0.
    pub(crate) fn intended(&self, index: u64) -> Instant {
        let nanos = self.interval.as_nanos() * u128::from(index);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Sends each intended start when it has come. From a thread: timers of the runtime have a resolution of a millisecond.
    pub(crate) fn run(self) -> mpsc::UnboundedReceiver<Instant> {
        let (sender, arrivals) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for index in 0..self.count {
                let intended = self.intended(index);
                std::thread::sleep(intended.saturating_duration_since(Instant::now()));
                if sender.send(intended).is_err() {
                    return;
                }
            }
        });
        arrivals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_arrive_in_order_without_drift() {
        let start = Instant::now();
        let interval = Duration::from_micros(333);
        let schedule = Schedule { start, interval, count: 5 };
        assert_eq!(schedule.intended(3_000_000), start + Duration::from_secs(999));
        let mut arrivals = schedule.run();
        let mut intended = Vec::new();
        while let Some(arrival) = arrivals.recv().await {
            assert!(Instant::now() >= arrival);
            intended.push(arrival);
        }
        assert_eq!(intended, (0..5).map(|index| start + interval * index).collect::<Vec<_>>());
    }
}
