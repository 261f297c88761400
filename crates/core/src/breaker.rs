//! When an agent is given nothing for a while: after several attempts in a row failed through no fault of their tasks,
//! others would fail the same way. Pure; knows no agents, only how their attempts end.

use std::time::Duration;

use crate::Timestamp;
use crate::failure::{Class, Failure};
use crate::retry::backoff;

/// How many times the first cool-down the longest one is.
const LONGEST: u32 = 20;

/// When to stop, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row after which nothing is given; 0 goes on whatever happens.
    pub failures: u32,
    /// The first cool-down; each further one in a row is twice as long, up to twenty times the first.
    pub cooldown: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { failures: 5, cooldown: Duration::from_secs(30) }
    }
}

/// What the end of an attempt says of its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// It works.
    Well,
    /// It does not, through no fault of the task.
    AtFault(&'a Failure),
    /// Nothing.
    Nothing,
}

impl<'a> Word<'a> {
    /// What a failure says. Whether one of starting is the agent's depends on who names the program.
    pub fn of(failure: &'a Failure, own_program: bool) -> Self {
        match failure.class {
            Class::Auth | Class::RateLimit | Class::Overload => Self::AtFault(failure),
            Class::Start if own_program => Self::AtFault(failure),
            // The agent came so far as to say so.
            Class::Agent | Class::Refusal | Class::Budget => Self::Well,
            Class::Start
            | Class::Timeout
            | Class::Hang
            | Class::Crash
            | Class::WorkerLost
            | Class::Invalid
            | Class::Protocol
            | Class::Dependency
            | Class::QueueTimeout
            | Class::Quarantined
            | Class::Environment => Self::Nothing,
        }
    }
}

/// What an agent is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// All that it has room for.
    #[default]
    Closed,
    /// Nothing until then.
    Open {
        /// The end of the cool-down.
        until: Timestamp,
    },
    /// One task, which shows whether it works again.
    HalfOpen,
}

/// One agent's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// In a row.
    failures: u32,
    /// How often it opened in a row.
    opened: u32,
    /// The last failure, as a class and a sentence.
    last: Option<(Class, String)>,
}

impl Breaker {
    /// What its agent is given.
    pub fn state(&self) -> State {
        self.state
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The last failure that counted.
    pub fn last(&self) -> Option<&(Class, String)> {
        self.last.as_ref()
    }

    /// An attempt has ended. `jitter` is from 0 to 1.
    pub fn ended(&mut self, policy: &Policy, word: Word<'_>, now: Timestamp, jitter: f64) {
        match word {
            Word::Nothing => {}
            // Also of an attempt that began before it opened: it works again.
            Word::Well => *self = Self::default(),
            Word::AtFault(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.last = Some((failure.class, failure.message.clone()));
                let opens = match self.state {
                    State::Closed => policy.failures > 0 && self.failures >= policy.failures,
                    // Those that were under way when it opened fail as well, and say nothing new.
                    State::Open { .. } => false,
                    State::HalfOpen => true,
                };
                if opens {
                    self.opened = self.opened.saturating_add(1);
                    let longest = policy.cooldown.saturating_mul(LONGEST);
                    let wait = backoff(policy.cooldown, longest, self.opened, jitter);
                    let told = failure.retry_after.unwrap_or_default().min(longest);
                    self.state = State::Open { until: now + wait.max(told) };
                }
            }
        }
    }

    /// Looks at the clock. Whether that changed something.
    pub fn tick(&mut self, now: Timestamp) -> bool {
        let over = matches!(self.state, State::Open { until } if until <= now);
        if over {
            self.state = State::HalfOpen;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { failures: 3, cooldown: Duration::from_secs(10) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn overload() -> Failure {
        Failure::new(Class::Overload, "529")
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            assert_eq!(breaker.state(), State::Closed);
            breaker.ended(&POLICY, Word::AtFault(&overload()), at(0), 1.0);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_when_one_goes_well() {
        let mut breaker = open();
        assert_eq!(breaker.state(), State::Open { until: at(10) });
        assert!(!breaker.tick(at(9)) && breaker.tick(at(10)));
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.ended(&POLICY, Word::Nothing, at(11), 1.0);
        assert_eq!(breaker.state(), State::HalfOpen);
        // Again, and for longer.
        breaker.ended(&POLICY, Word::AtFault(&overload()), at(11), 1.0);
        assert_eq!(breaker.state(), State::Open { until: at(31) });
        assert!(breaker.tick(at(31)));
        breaker.ended(&POLICY, Word::Well, at(32), 1.0);
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn one_that_goes_well_in_between_begins_the_count_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.ended(&POLICY, Word::AtFault(&overload()), at(0), 0.0);
            breaker.ended(&POLICY, Word::AtFault(&overload()), at(0), 0.0);
            breaker.ended(&POLICY, Word::Nothing, at(0), 0.0);
            breaker.ended(&POLICY, Word::Well, at(0), 0.0);
        }
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn what_was_under_way_when_it_opened_changes_little() {
        let mut breaker = open();
        breaker.ended(&POLICY, Word::AtFault(&overload()), at(5), 1.0);
        assert_eq!(breaker.state(), State::Open { until: at(10) });
        breaker.ended(&POLICY, Word::Well, at(6), 1.0);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn the_wait_is_at_least_what_was_told_and_never_too_long() {
        let limited = |after| Failure { retry_after: Some(Duration::from_secs(after)), ..overload() };
        for (told, until) in [(1, 10), (50, 50), (1_000_000, 200)] {
            let mut breaker = Breaker::default();
            let failure = limited(told);
            (0..3).for_each(|_| breaker.ended(&POLICY, Word::AtFault(&failure), at(0), 1.0));
            assert_eq!(breaker.state(), State::Open { until: at(until) });
        }
    }

    #[test]
    fn a_policy_of_zero_never_opens() {
        let (mut breaker, never) = (Breaker::default(), Policy { failures: 0, ..POLICY });
        (0..100).for_each(|_| breaker.ended(&never, Word::AtFault(&overload()), at(0), 1.0));
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn only_the_agents_and_its_models_faults_count() {
        for class in Class::ALL {
            let failure = Failure::new(class, "x");
            let counts = |own| matches!(Word::of(&failure, own), Word::AtFault(_));
            let expected = matches!(class, Class::Auth | Class::RateLimit | Class::Overload);
            assert_eq!(counts(false), expected, "{class:?}");
            assert_eq!(counts(true), expected || class == Class::Start, "{class:?}");
        }
    }
}
