//! Retry policy and backoff. Jitter is an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::AgentName;
use crate::failure::{Failure, Recovery};
use crate::task::Own;

/// Rate-limited attempts that are retried; the total timeout usually ends a task long before.
pub const MAX_WAITS: u32 = 100;
/// Largest wait that a failing side may request, but for the end of a limit that it named; jitter adds up to a tenth.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Longest time to the end of a limit: longer than the period of any, so that only nonsense is cut.
pub const MAX_RESET: Duration = Duration::from_hours(32 * 24);
/// Shortest time to the end of a limit. One that comes earlier has probably passed, by another clock.
pub const MIN_RESET: Duration = Duration::from_secs(3);
/// Time to the end of a limit from which on the wait for it is none of the waits that a task has.
pub const MIN_FREE_RESET: Duration = Duration::from_mins(1);

/// Retry policy of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Attempts including the first; at least 1.
    pub max_attempts: u32,
    /// Lost workers after which the task is still retried.
    pub max_worker_losses: u32,
    /// Wait before the first retry; doubles with each further one.
    pub initial_backoff: Duration,
    pub max_backoff: Duration,
    /// Other agents for later attempts, in ascending order of failures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<Escalation>,
}

/// Agent of the attempts after a number of failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// Failures of the work from which on the agent has the attempts; at least 1.
    pub failures: u32,
    pub agent: AgentName,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            max_worker_losses: 3,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(300),
            agents: Vec::new(),
        }
    }
}

/// Decision after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Retry after this wait, at the expense of one attempt of the policy.
    Retry(Duration),
    /// Retry after this wait, without using an attempt of the policy.
    Wait(Duration),
    Stop,
}

impl Policy {
    /// Decides on a retry. `failures` and `waits` include this attempt; `own` is what of it came from the task; `jitter` is
    /// from 0 to 1.
    pub fn decide(&self, failure: &Failure, failures: u32, waits: u32, own: Own, jitter: f64) -> Decision {
        match failure.class.recovery() {
            Recovery::Stop => Decision::Stop,
            Recovery::Credentials if own.credentials => Decision::Stop,
            Recovery::Credentials if own.choice && waits > MAX_WAITS => Decision::Stop,
            Recovery::Retry | Recovery::Elsewhere if failures >= self.max_attempts => Decision::Stop,
            Recovery::Retry | Recovery::Elsewhere => Decision::Retry(self.wait(failure, failures, jitter)),
            Recovery::Wait if waits > MAX_WAITS && !failure.waits_free() => Decision::Stop,
            Recovery::Wait | Recovery::Credentials => Decision::Wait(self.wait(failure, waits, jitter)),
        }
    }

    /// Returns the agent of the attempts after this many failures of the work, if it is another one than at first.
    pub fn agent_after(&self, failures: u32) -> Option<&AgentName> {
        let reached = self.agents.iter().rev().find(|one| one.failures <= failures);
        reached.map(|one| &one.agent)
    }

    /// Returns the wait after the `count`th failure: what the failing side asks for, or the backoff.
    pub(crate) fn wait(&self, failure: &Failure, count: u32, jitter: f64) -> Duration {
        let backoff = self.backoff(count, jitter);
        failure.retry_after.map_or(backoff, |requested| {
            if let Some(resets) = failure.resets_in() {
                // Slots bound how many tasks start then.
                return resets.max(backoff / 2);
            }
            let requested = requested.min(MAX_RETRY_AFTER);
            // Never earlier than requested, and not for all callers at the same time.
            (requested + part(requested / 10, jitter)).max(backoff / 2)
        })
    }

    /// Returns the wait after the `count`th failure, from 1.
    pub fn backoff(&self, count: u32, jitter: f64) -> Duration {
        backoff(self.initial_backoff, self.max_backoff, count, jitter)
    }
}

/// Returns the `count`th wait (from 1): exponential, with "equal jitter" between half and all of it
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
pub fn backoff(initial: Duration, most: Duration, count: u32, jitter: f64) -> Duration {
    let whole = initial.saturating_mul(1 << count.saturating_sub(1).min(20)).min(most);
    // Only one half is converted to a float, in which the whole of the largest duration would overflow.
    whole / 2 + part(whole / 2, jitter)
}

/// Returns a fraction of a duration; `jitter` is from 0 to 1.
fn part(whole: Duration, jitter: f64) -> Duration {
    // `max` turns NaN into 0.
    whole.mul_f64(jitter.clamp(0.0, 1.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    #[test]
    fn backoff_grows_within_bounds() {
        let policy = Policy::default();
        assert_eq!(policy.backoff(1, 1.0), Duration::from_secs(1));
        assert_eq!(policy.backoff(1, 0.0), Duration::from_millis(500));
        assert_eq!(policy.backoff(3, 1.0), Duration::from_secs(4));
        assert_eq!(policy.backoff(u32::MAX, 1.0), policy.max_backoff);
    }

    #[test]
    fn failures_lead_to_the_last_agent_reached() {
        let agent = |name| AgentName::new(name).unwrap();
        let one = |failures, name| Escalation { failures, agent: agent(name) };
        let policy = Policy { agents: vec![one(2, "senior"), one(3, "chief")], ..Policy::default() };
        let reached = [0, 1, 2, 3, 9].map(|failures| policy.agent_after(failures).cloned());
        assert_eq!(reached, [None, None, Some(agent("senior")), Some(agent("chief")), Some(agent("chief"))]);
    }

    #[test]
    fn each_class_has_its_recovery() {
        let policy = Policy::default();
        for class in Class::ALL {
            let failure = Failure::new(class, "x");
            let [none, choice, all] = [(false, false), (false, true), (true, false)]
                .map(|(credentials, choice)| Own { credentials, choice, ..Own::default() });
            let first = policy.decide(&failure, 1, 1, none, 0.5);
            match class.recovery() {
                Recovery::Retry | Recovery::Elsewhere => {
                    assert!(matches!(first, Decision::Retry(_)), "{class:?}");
                }
                Recovery::Wait | Recovery::Credentials => {
                    assert!(matches!(first, Decision::Wait(_)), "{class:?}");
                }
                Recovery::Stop => assert_eq!(first, Decision::Stop, "{class:?}"),
            }
            for own in [choice, all] {
                assert_eq!(policy.decide(&failure, 3, MAX_WAITS + 1, own, 0.5), Decision::Stop);
            }
            // The agent's credentials may have expired nonetheless: the choice is not blamed yet.
            assert_eq!(policy.decide(&failure, 1, 1, choice, 0.5), first);
        }
    }

    #[test]
    fn retry_after_is_respected_with_jitter() {
        let mut failure = Failure::new(Class::RateLimit, "x");
        failure.retry_after = Some(Duration::from_secs(77));
        for (jitter, millis) in
            [(0.0, 77_000), (0.5, 80_850), (1.0, 84_700), (9.9, 84_700), (f64::NAN, 77_000)]
        {
            let wait = Decision::Wait(Duration::from_millis(millis));
            assert_eq!(Policy::default().decide(&failure, 1, 1, Own::default(), jitter), wait);
        }
        failure.limit_resets = true;
        for days in [0, 7, 31] {
            let wait = Duration::from_hours(24 * days) + Duration::from_secs(2400);
            failure.retry_after = Some(wait);
            let decided = Policy::default().decide(&failure, 1, 1, Own::default(), 1.0);
            assert_eq!(decided, Decision::Wait(wait), "no cap, no jitter");
        }
        failure.retry_after = Some(Duration::from_secs(u64::MAX));
        assert_eq!(Policy::default().decide(&failure, 1, 1, Own::default(), 1.0), Decision::Wait(MAX_RESET));
    }

    #[test]
    fn resets_that_have_passed_end_the_task_in_time() {
        let mut failure = Failure::new(Class::RateLimit, "x");
        failure.limit_resets = true;
        for (seconds, ends) in [(1, true), (30, true), (3600, false)] {
            failure.retry_after = Some(Duration::from_secs(seconds));
            let decided = Policy::default().decide(&failure, 1, MAX_WAITS + 1, Own::default(), 1.0);
            assert_eq!(decided == Decision::Stop, ends, "{seconds}");
        }
    }
}
