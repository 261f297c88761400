//! Reasons for which the workers of an agent do not start, and the pauses that follow.

use std::time::Duration;

use backon::ExponentialBackoff;
use rota_core::scaling::STABLE_AFTER;
use tokio::time::Instant;

use crate::backoff;

const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(120);
/// Time after the end of its pause from which a failure is outdated: no start was wanted since.
const EXPIRE_AFTER: Duration = Duration::from_secs(600);

const INVALID_SPEC: &str = "InvalidSpec";

/// Why workers of an agent do not start: its spec is invalid or rejected, or its pods are rejected or fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartFailure {
    /// CamelCase reason, as in conditions and Events.
    pub reason: String,
    pub message: String,
}

impl StartFailure {
    pub(crate) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }

    /// Returns the failure of a pod that cannot be built from its specification.
    pub(crate) fn invalid_spec(message: impl Into<String>) -> Self {
        Self::new(INVALID_SPEC, message)
    }

    /// Whether the pod could not be built: pods of other specifications may be.
    pub(crate) fn is_of_its_spec(&self) -> bool {
        self.reason == INVALID_SPEC
    }
}

/// Failed starts of one pod template. Those of another template do not count for it.
#[derive(Debug, Default)]
pub(super) struct StartFailures {
    hash: String,
    last: Option<StartFailure>,
    delays: Option<ExponentialBackoff>,
    until: Option<Instant>,
    /// Time of the first worker that joined after the last failure.
    joined: Option<Instant>,
}

impl StartFailures {
    /// Records a failure, and pauses starts of its template.
    pub(super) fn failed(&mut self, hash: &str, failure: StartFailure, now: Instant) {
        let has_been_stable = self.joined.is_some_and(|at| now - at >= STABLE_AFTER);
        if self.hash != hash || has_been_stable {
            *self = Self { hash: hash.to_owned(), ..Self::default() };
        }
        let delays = self.delays.get_or_insert_with(|| backoff::delays(INITIAL_BACKOFF, MAX_BACKOFF));
        self.until = Some(now + delays.next().unwrap_or(MAX_BACKOFF));
        self.last = Some(failure);
        self.joined = None;
    }

    /// Records that a worker of a template has connected for the first time: the next start may succeed. Delays go on
    /// growing until one has been stable, since it may fail right after. Returns whether there was a failure.
    pub(super) fn joined(&mut self, hash: &str, now: Instant) -> bool {
        if self.hash != hash || self.last.is_none() {
            return false;
        }
        self.until = None;
        self.last = None;
        self.joined = Some(now);
        true
    }

    /// Returns the last failure of a template, unless a worker has joined or no start was wanted for long.
    pub(super) fn last(&self, hash: &str, now: Instant) -> Option<&StartFailure> {
        let current = self.until.is_some_and(|until| now < until + EXPIRE_AFTER);
        self.last.as_ref().filter(|_| current && self.hash == hash)
    }

    /// Returns how long no worker of a template may be started; zero if one may.
    pub(super) fn delay(&self, hash: &str, now: Instant) -> Duration {
        let until = self.until.filter(|_| self.hash == hash);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failures: &mut StartFailures, hash: &str, now: Instant) {
        failures.failed(hash, StartFailure::new("Error", "x"), now);
    }

    #[tokio::test(start_paused = true)]
    async fn start_delay_is_kept_per_template() {
        let (mut failures, now) = (StartFailures::default(), Instant::now());
        assert_eq!(failures.delay("bad", now), Duration::ZERO);
        (0..9).for_each(|_| failed(&mut failures, "bad", now));
        let delay = failures.delay("bad", now);
        assert!(delay > MAX_BACKOFF / 2);
        // A worker of another template joins, as one of a healthy pool does during a bad rollout.
        assert!(!failures.joined("good", now));
        assert_eq!((failures.delay("bad", now), failures.delay("good", now)), (delay, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn delays_grow_until_a_worker_is_stable() {
        let (mut failures, now) = (StartFailures::default(), Instant::now());
        (0..9).for_each(|_| failed(&mut failures, "h", now));
        assert!(failures.joined("h", now));
        assert_eq!((failures.delay("h", now), &failures.last), (Duration::ZERO, &None));
        // It crashed right after.
        failed(&mut failures, "h", now);
        assert!(failures.delay("h", now) > MAX_BACKOFF / 2);
        assert!(failures.last("h", now).is_some() && failures.last("other", now).is_none());
        assert_eq!(
            failures.last("h", now + 2 * MAX_BACKOFF + EXPIRE_AFTER),
            None,
            "nothing has asked for a worker since"
        );
        failures.joined("h", now);
        let later = now + STABLE_AFTER;
        failed(&mut failures, "h", later);
        assert!(failures.delay("h", later) <= 2 * INITIAL_BACKOFF);
    }
}
