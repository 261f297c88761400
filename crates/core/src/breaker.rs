//! When an agent is given nothing for a while: after several attempts in a row failed through no fault of their tasks,
//! others would fail the same way. Pure; knows no agents, only how their attempts end.

use std::time::Duration;

use crate::Timestamp;
use crate::failure::{Class, Failure};
use crate::retry::backoff;

/// How many times the first cool-down the longest one is.
const LONGEST: u32 = 20;
/// At least so long nothing is heard of the one task that was let through before another one is.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// What a failure says, where the agent names the program, and where it names the model and the key for it. A
    /// task that brings its own speaks for itself.
    pub fn of(failure: &'a Failure, program: bool, model: bool) -> Self {
        match failure.class {
            Class::Auth | Class::RateLimit | Class::Overload if model => Self::AtFault(failure),
            Class::Start if program => Self::AtFault(failure),
            // The agent came so far as to say so.
            Class::Agent | Class::Refusal | Class::Budget => Self::Well,
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
    HalfOpen {
        /// When another one may show it, if nothing was heard of that one.
        until: Timestamp,
    },
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

    /// An attempt has ended; `tried` if it was the one that was let through. `jitter` is from 0 to 1.
    pub fn ended(&mut self, policy: &Policy, word: Word<'_>, tried: bool, now: Timestamp, jitter: f64) {
        match word {
            Word::Nothing => {}
            // Also of an attempt that began before it opened: it works again.
            Word::Well => *self = Self::default(),
            // Those that were under way when it opened fail as well, and say nothing new.
            Word::AtFault(_) if self.state != State::Closed && !tried => {}
            Word::AtFault(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.last = Some((failure.class, failure.message.clone()));
                let opens = match self.state {
                    State::Closed => policy.failures > 0 && self.failures >= policy.failures,
                    State::Open { .. } => false,
                    State::HalfOpen { .. } => true,
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
    pub fn tick(&mut self, policy: &Policy, now: Timestamp) -> bool {
        let over = self.until().is_some_and(|until| until <= now);
        if over {
            let patience = policy.cooldown.saturating_mul(LONGEST).max(PATIENCE);
            self.state = State::HalfOpen { until: now + patience };
        }
        over
    }

    /// When to look at the clock.
    pub fn until(&self) -> Option<Timestamp> {
        match self.state {
            State::Closed => None,
            State::Open { until } | State::HalfOpen { until } => Some(until),
        }
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
            breaker.ended(&POLICY, Word::AtFault(&overload()), false, at(0), 1.0);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_when_one_goes_well() {
        let mut breaker = open();
        assert_eq!(breaker.state(), State::Open { until: at(10) });
        assert!(!breaker.tick(&POLICY, at(9)) && breaker.tick(&POLICY, at(10)));
        let half = State::HalfOpen { until: at(10 + 200) };
        assert_eq!(breaker.state(), half);
        breaker.ended(&POLICY, Word::Nothing, true, at(11), 1.0);
        assert_eq!(breaker.state(), half);
        // One that was under way all the time is no news.
        breaker.ended(&POLICY, Word::AtFault(&overload()), false, at(11), 1.0);
        assert_eq!(breaker.state(), half);
        // Again, and for longer.
        breaker.ended(&POLICY, Word::AtFault(&overload()), true, at(11), 1.0);
        assert_eq!(breaker.state(), State::Open { until: at(31) });
        assert!(breaker.tick(&POLICY, at(31)));
        breaker.ended(&POLICY, Word::Well, false, at(32), 1.0);
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn one_that_goes_well_in_between_begins_the_count_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.ended(&POLICY, Word::AtFault(&overload()), false, at(0), 0.0);
            breaker.ended(&POLICY, Word::AtFault(&overload()), false, at(0), 0.0);
            breaker.ended(&POLICY, Word::Nothing, false, at(0), 0.0);
            breaker.ended(&POLICY, Word::Well, false, at(0), 0.0);
        }
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn what_was_under_way_when_it_opened_changes_little() {
        let mut breaker = open();
        breaker.ended(&POLICY, Word::AtFault(&overload()), false, at(5), 1.0);
        assert_eq!(breaker.state(), State::Open { until: at(10) });
        breaker.ended(&POLICY, Word::Well, false, at(6), 1.0);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn the_wait_is_at_least_what_was_told_and_never_too_long() {
        let limited = |after| Failure { retry_after: Some(Duration::from_secs(after)), ..overload() };
        for (told, until) in [(1, 10), (50, 50), (1_000_000, 200)] {
            let mut breaker = Breaker::default();
            let failure = limited(told);
            (0..3).for_each(|_| breaker.ended(&POLICY, Word::AtFault(&failure), false, at(0), 1.0));
            assert_eq!(breaker.state(), State::Open { until: at(until) });
        }
    }

    #[test]
    fn another_one_is_let_through_when_nothing_is_heard_of_the_first() {
        let mut breaker = open();
        assert!(breaker.tick(&POLICY, at(10)) && !breaker.tick(&POLICY, at(209)));
        assert!(breaker.tick(&POLICY, at(210)));
        assert_eq!(breaker.state(), State::HalfOpen { until: at(410) });
    }

    #[test]
    fn a_policy_of_zero_never_opens() {
        let (mut breaker, never) = (Breaker::default(), Policy { failures: 0, ..POLICY });
        (0..100).for_each(|_| breaker.ended(&never, Word::AtFault(&overload()), false, at(0), 1.0));
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn only_the_agents_and_its_models_faults_count() {
        for class in Class::ALL {
            let failure = Failure::new(class, "x");
            let counts = |program, model| matches!(Word::of(&failure, program, model), Word::AtFault(_));
            let of_model = matches!(class, Class::Auth | Class::RateLimit | Class::Overload);
            assert!(!counts(false, false), "{class:?}");
            assert_eq!(counts(false, true), of_model, "{class:?}");
            assert_eq!(counts(true, false), class == Class::Start, "{class:?}");
        }
    }
}
