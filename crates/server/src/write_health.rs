//! Whether the store takes writes, and since when. Must not know what is written.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use rota_store::Error;
use rota_store::engine::MIN_OUTAGE;
use tokio::time::Instant;

/// What is wrong with the store, and a hint what to do about it.
pub(crate) type StoreProblem = (String, &'static str);

/// Outcome of the last write, and the last time in which none succeeded.
#[derive(Debug, Default)]
pub(crate) struct WriteHealth {
    /// Batches that were not written.
    failures: Counter,
    problem: Mutex<Option<StoreProblem>>,
    outage: Mutex<Outage>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Outage {
    /// The first write that was unavailable since one has succeeded.
    since: Option<Instant>,
    /// The first success after the last outage.
    over: Option<Instant>,
}

impl Outage {
    fn failed(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    fn succeeded(&mut self, now: Instant) {
        if self.since.take().is_some_and(|since| now.duration_since(since) >= MIN_OUTAGE) {
            self.over = Some(now);
        }
    }

    fn held_until(&self, now: Instant, grace: Duration) -> Option<Instant> {
        let lasts = self.since.filter(|since| now.duration_since(*since) >= MIN_OUTAGE);
        lasts.map(|_| now).or(self.over).map(|from| from + grace).filter(|until| *until > now)
    }
}

impl WriteHealth {
    /// Creates a health that counts failed writes.
    pub(crate) fn new(failures: Counter) -> Self {
        Self { failures, ..Self::default() }
    }

    /// Returns what failed with the last write; nothing if it succeeded.
    pub(crate) fn error(&self) -> Option<StoreProblem> {
        self.problem.lock().clone()
    }

    /// Returns until when no deadline of a worker is judged: it could not report while no write succeeded, and has `grace`
    /// to do so afterwards. `None` if it may be judged now.
    pub(crate) fn held_until(&self, grace: Duration) -> Option<Instant> {
        self.outage.lock().held_until(Instant::now(), grace)
    }

    /// Takes account of the outcome of a write.
    pub(crate) fn observe<T>(&self, outcome: &Result<T, Error>) {
        match outcome {
            // A closed store is no evidence of its health.
            Err(Error::Closed) => {}
            Err(error) => {
                self.failures.inc();
                let (message, hint) = problem(error);
                if error.is_fatal() {
                    tracing::error!(error = message, hint, "the store takes no more writes");
                }
                *self.problem.lock() = Some((message, hint));
                if matches!(error, Error::Unavailable { .. }) {
                    self.outage.lock().failed(Instant::now());
                }
            }
            Ok(_) => {
                self.outage.lock().succeeded(Instant::now());
                drop(self.problem.lock().take());
            }
        }
    }
}

/// Describes an error of the store.
pub(crate) fn problem(error: &Error) -> StoreProblem {
    let hint = match error {
        Error::Unavailable { hint, .. } => hint,
        Error::Corrupt(_) => "restore the store from a backup",
        Error::LostSync(_) => {
            "check the disk or the database, then restart Rota, which recovers the committed data"
        }
        Error::Deposed => "stop the control plane that should not run",
        Error::LeaseLost => {
            "check the database and the network; a call with an idempotency key can be repeated"
        }
        Error::Closed => "",
    };
    (error.to_string(), hint)
}

#[cfg(test)]
mod tests;
