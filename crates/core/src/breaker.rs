//! Circuit breaker state machine: opens after consecutive infrastructure failures, half-opens after a cooldown to admit one
//! probe, and closes on success. Agents, workers and back ends have one each. Pure; knows none of them, and no clock.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::failure::{Class, Failure};
use crate::retry::backoff;
use crate::task::Own;
use crate::{Fence, TaskId, Timestamp, WorkerName};

/// Limit of the cooldown, as a multiple of the first.
const MAX_COOLDOWN_FACTOR: u32 = 20;
/// Limit of the time until a probe, whatever end of a rate limit a worker reported: the limit may have been raised, or have
/// been that of another model.
const MAX_RATE_LIMIT: Duration = Duration::from_hours(1);
/// Lower limit of the time after which a probe without a result is replaced by another.
const MIN_PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// Thresholds of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Tasks with infrastructure failures, without a success between them, that open the breaker; 0 disables it.
    pub failures: u32,
    /// First cooldown; each further one in a row is twice as long, up to twenty times the first.
    pub cooldown: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { failures: 5, cooldown: Duration::from_secs(30) }
    }
}

/// The result of an attempt as evidence about its agent, or about its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The agent works.
    Success,
    /// The agent's infrastructure failed: its program, its model or its credentials.
    Failure(&'a Failure),
    /// No evidence either way.
    Ignored,
}

impl<'a> Outcome<'a> {
    /// Classifies a failure of an attempt of which the task brought its `own` parts; failures of these are ignored. `program`
    /// states whether the agent chose the program.
    pub fn of(failure: &'a Failure, program: bool, own: Own) -> Self {
        match failure.class {
            Class::Auth if own.authenticates_as_agent() => Self::Failure(failure),
            Class::RateLimit | Class::Overload if !own.credentials => Self::Failure(failure),
            Class::Start if program && !own.program => Self::Failure(failure),
            // The agent ran far enough to report these itself.
            Class::Agent | Class::Refusal | Class::Budget | Class::Checks => Self::Success,
            Class::Auth
            | Class::RateLimit
            | Class::Overload
            | Class::Start
            | Class::Timeout
            | Class::Hang
            | Class::Crash
            | Class::WorkerLost
            | Class::Invalid
            | Class::Protocol
            | Class::Dependency
            | Class::QueueTimeout
            | Class::Quarantined
            | Class::Environment
            | Class::Source
            | Class::Delivery
            | Class::Setup => Self::Ignored,
        }
    }
}

impl<'a> Outcome<'a> {
    /// Classifies a failure as evidence about the back end of the model. What it refuses to a credential does not count.
    pub fn of_backend(failure: &'a Failure) -> Self {
        match failure.class {
            Class::Overload => Self::Failure(failure),
            // The model answered before.
            Class::Agent | Class::Refusal | Class::Budget | Class::Checks => Self::Success,
            _ => Self::Ignored,
        }
    }

    /// Classifies a failure as evidence about the worker. `program` states whether the agent, not the task, chose the
    /// program.
    pub fn of_worker(failure: &'a Failure, program: bool) -> Self {
        match failure.class {
            Class::Environment => Self::Failure(failure),
            Class::Start | Class::Crash if program => Self::Failure(failure),
            // The program ran on the worker and reported these itself.
            Class::Agent | Class::Refusal | Class::Budget | Class::Checks => Self::Success,
            _ => Self::Ignored,
        }
    }
}

/// Admission of an agent's tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Every task is admitted.
    #[default]
    Closed,
    /// No task is admitted until the cooldown ends.
    Open {
        /// End of the cooldown.
        until: Timestamp,
    },
    /// One probe task is admitted.
    HalfOpen {
        /// When another probe is admitted, if this one has no result by then.
        until: Timestamp,
    },
}

/// Identity of an attempt.
type Attempt = (TaskId, Fence);

/// The circuit breaker of one agent, one worker, or one back end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// Consecutive infrastructure failures, while closed one per task: no task opens it by its own retries.
    failures: u32,
    /// Tasks whose failures count, while closed.
    failed: BTreeSet<TaskId>,
    /// Workers on which tasks failed, while closed: two of them, if there are as many.
    witnesses: BTreeSet<WorkerName>,
    /// Consecutive openings.
    opened: u32,
    /// The last failure that counted: its class and message.
    last: Option<(Class, String)>,
    /// Attempts that were admitted as probes and have no result yet.
    probes: BTreeSet<Attempt>,
}

impl Breaker {
    /// Returns which tasks are admitted.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the number of consecutive infrastructure failures, of which those of one task count once until it opens.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the class and message of the last failure that counted.
    pub fn last(&self) -> Option<&(Class, String)> {
        self.last.as_ref()
    }

    /// Registers an attempt that was assigned to the agent; a probe while half-open.
    pub fn assigned(&mut self, attempt: Attempt) {
        if matches!(self.state, State::HalfOpen { .. }) {
            self.probes.insert(attempt);
        }
    }

    /// Whether an attempt is a probe that has no result yet.
    pub fn is_probe(&self, attempt: Attempt) -> bool {
        self.probes.contains(&attempt)
    }

    /// Registers the worker on which a task fails. Returns whether the failure would open the breaker though it was seen by this
    /// worker alone: what is sick may be the worker. Such a failure is remembered as the last one, and does not count.
    pub fn is_seen_by_one(
        &mut self,
        policy: &Policy,
        failure: &Failure,
        task: TaskId,
        worker: &WorkerName,
    ) -> bool {
        if self.state != State::Closed || policy.failures == 0 {
            return false;
        }
        if self.witnesses.len() < 2 {
            self.witnesses.insert(worker.clone());
        }
        let opens = !self.failed.contains(&task) && self.failures.saturating_add(1) >= policy.failures;
        let by_one = opens && self.witnesses.len() < 2;
        if by_one {
            self.last = Some((failure.class, failure.message.clone()));
        }
        by_one
    }

    /// Takes in the outcome of an attempt, and returns whether it was a probe. `jitter` is from 0 to 1.
    pub fn observe_outcome(
        &mut self,
        policy: &Policy,
        outcome: Outcome<'_>,
        attempt: Attempt,
        now: Timestamp,
        jitter: f64,
    ) -> bool {
        let probe = self.probes.remove(&attempt);
        match outcome {
            Outcome::Ignored => {}
            // Also for an attempt that started before the breaker opened: the agent works again.
            Outcome::Success => *self = Self::default(),
            // Attempts that were running when the breaker opened fail for the same reason.
            Outcome::Failure(_) if self.state != State::Closed && !probe => {}
            Outcome::Failure(failure) => {
                self.last = Some((failure.class, failure.message.clone()));
                if policy.failures == 0 || self.state == State::Closed && !self.failed.insert(attempt.0) {
                    return probe;
                }
                self.failures = self.failures.saturating_add(1);
                let opens = match self.state {
                    State::Closed => self.failures >= policy.failures,
                    State::Open { .. } => false,
                    State::HalfOpen { .. } => true,
                };
                if opens {
                    self.failed.clear();
                    self.witnesses.clear();
                    self.opened = self.opened.saturating_add(1);
                    let longest = policy.cooldown.saturating_mul(MAX_COOLDOWN_FACTOR);
                    let cooldown = backoff(policy.cooldown, longest, self.opened, jitter);
                    // Until a rate limit ends, each probe would take a task and a worker in vain.
                    let limit = if failure.class == Class::RateLimit { MAX_RATE_LIMIT } else { longest };
                    let requested = failure.retry_after.unwrap_or_default().min(limit);
                    self.state = State::Open { until: now + cooldown.max(requested) };
                }
            }
        }
        probe
    }

    /// Half-opens the breaker, or admits another probe, if that is due. Returns whether it did.
    pub fn tick(&mut self, policy: &Policy, now: Timestamp) -> bool {
        let over = self.until().is_some_and(|until| until <= now);
        if over {
            let timeout = policy.cooldown.saturating_mul(MAX_COOLDOWN_FACTOR).max(MIN_PROBE_TIMEOUT);
            self.state = State::HalfOpen { until: now + timeout };
        }
        over
    }

    /// Ends the cooldown of an open breaker now. Returns whether it was open.
    pub fn probe_now(&mut self, policy: &Policy, now: Timestamp) -> bool {
        if let State::Open { until } = &mut self.state {
            *until = now;
            return self.tick(policy, now);
        }
        false
    }

    /// Returns when [`Breaker::tick`] is due.
    pub fn until(&self) -> Option<Timestamp> {
        match self.state {
            State::Closed => None,
            State::Open { until } | State::HalfOpen { until } => Some(until),
        }
    }
}

#[cfg(test)]
mod tests;
