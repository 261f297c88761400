//! How often a worker may open a session: each one is a commit and reads records.

use std::num::NonZeroU32;

use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tonic::Status;

use crate::keys::WorkerKey;
use crate::wire::status;

/// Sessions per minute of one worker, any of which may follow each other immediately. A worker that loses each of its
/// sessions immediately opens about 25.
pub(crate) const MAX_HELLOS: u32 = 120;
/// Number of workers at which those that were idle are forgotten.
const MAX_KNOWN: usize = 20_000;

type Limiter =
    RateLimiter<WorkerKey, HashMapStateStore<WorkerKey>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// Limits how often each worker opens a session.
pub(crate) struct HelloRate(Limiter);

impl Default for HelloRate {
    fn default() -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(MAX_HELLOS).unwrap_or(NonZeroU32::MIN));
        Self(RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock))
    }
}

impl HelloRate {
    /// Refuses a worker that has opened too many sessions.
    pub(super) fn check(&self, worker: &WorkerKey) -> Result<(), Status> {
        if self.0.len() > MAX_KNOWN {
            self.0.retain_recent();
        }
        self.0.check_key(worker).map_err(|_| {
            let text = format!("worker {} has opened more than {MAX_HELLOS} sessions in a minute", worker.1);
            status::error("LIMIT_REACHED", text)
        })
    }
}

#[cfg(test)]
mod tests {
    use rota_core::{Namespace, WorkerName};

    use super::*;

    #[test]
    fn workers_are_limited_each_by_itself() {
        let key = |name: &str| (Namespace::new("n").unwrap(), WorkerName::new(name).unwrap());
        let rate = HelloRate::default();
        for _ in 0..MAX_HELLOS {
            rate.check(&key("one")).unwrap();
        }
        let refused = rate.check(&key("one")).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        rate.check(&key("two")).unwrap();
    }
}
