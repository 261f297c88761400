//! Circuit breaker state machine, step by step.

use uuid::Uuid;

use super::*;

const POLICY: Policy = Policy { failures: 3, cooldown: Duration::from_secs(10) };

fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn attempt(number: u128) -> Attempt {
    (TaskId(Uuid::from_u128(number)), Fence(1))
}

fn overload() -> Failure {
    Failure::new(Class::Overload, "529")
}

fn observe(breaker: &mut Breaker, outcome: Outcome<'_>, number: u128, seconds: i64) -> bool {
    breaker.observe_outcome(&POLICY, outcome, attempt(number), at(seconds), 1.0)
}

fn open() -> Breaker {
    let mut breaker = Breaker::default();
    for number in 0..3 {
        assert_eq!(breaker.state(), State::Closed);
        observe(&mut breaker, Outcome::Failure(&overload()), number, 0);
    }
    breaker
}

#[test]
fn breaker_opens_half_opens_and_closes() {
    let mut breaker = open();
    assert_eq!(breaker.state(), State::Open { until: at(10) });
    let mut early = breaker.clone();
    assert!(early.probe_now(&POLICY, at(1)) && !early.probe_now(&POLICY, at(2)));
    assert_eq!(early.state(), State::HalfOpen { until: at(201) });
    breaker.assigned(attempt(9));
    assert!(!breaker.is_probe(attempt(9)));
    assert!(!breaker.tick(&POLICY, at(9)) && breaker.tick(&POLICY, at(10)));
    let half = State::HalfOpen { until: at(10 + 200) };
    assert_eq!(breaker.state(), half);
    breaker.assigned(attempt(10));
    assert!(breaker.is_probe(attempt(10)) && !breaker.is_probe((attempt(10).0, Fence(2))));
    assert!(observe(&mut breaker, Outcome::Ignored, 10, 11));
    assert_eq!(breaker.state(), half);
    // An attempt that was running all along is no probe.
    assert!(!observe(&mut breaker, Outcome::Failure(&overload()), 9, 11));
    assert_eq!(breaker.state(), half);
    // The cooldown doubles.
    breaker.assigned(attempt(11));
    assert!(observe(&mut breaker, Outcome::Failure(&overload()), 11, 11));
    assert_eq!(breaker.state(), State::Open { until: at(31) });
    assert!(breaker.tick(&POLICY, at(31)));
    observe(&mut breaker, Outcome::Success, 9, 32);
    assert_eq!(breaker, Breaker::default());
}

#[test]
fn success_resets_the_failure_count() {
    let mut breaker = Breaker::default();
    for _ in 0..2 {
        observe(&mut breaker, Outcome::Failure(&overload()), 1, 0);
        observe(&mut breaker, Outcome::Failure(&overload()), 2, 0);
        observe(&mut breaker, Outcome::Ignored, 3, 0);
        observe(&mut breaker, Outcome::Success, 4, 0);
    }
    assert_eq!(breaker, Breaker::default());
}

#[test]
fn earlier_attempts_do_not_prolong_the_cooldown() {
    let mut breaker = open();
    observe(&mut breaker, Outcome::Failure(&overload()), 4, 5);
    assert_eq!(breaker.state(), State::Open { until: at(10) });
    observe(&mut breaker, Outcome::Success, 5, 6);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn probe_expires_and_is_replaced() {
    let mut breaker = open();
    assert!(breaker.tick(&POLICY, at(10)) && !breaker.tick(&POLICY, at(209)));
    breaker.assigned(attempt(1));
    assert!(breaker.tick(&POLICY, at(210)));
    assert_eq!(breaker.state(), State::HalfOpen { until: at(410) });
    // The first one still counts.
    breaker.assigned(attempt(2));
    assert!(breaker.is_probe(attempt(1)) && breaker.is_probe(attempt(2)));
}

#[test]
fn cooldown_respects_requested_waits_and_their_limits() {
    for (class, requested, expected) in [
        (Class::Overload, 1, 10),
        (Class::Overload, 50, 50),
        (Class::Overload, 1_000_000, 200),
        (Class::RateLimit, 3600, 3600),
        (Class::RateLimit, 3_600_000, 3600),
    ] {
        let mut failure = Failure::new(class, "x");
        failure.retry_after = Some(Duration::from_secs(requested));
        let mut breaker = Breaker::default();
        for number in 0..3 {
            observe(&mut breaker, Outcome::Failure(&failure), number, 0);
        }
        assert_eq!(breaker.state(), State::Open { until: at(expected) }, "{class:?} {requested}");
    }
}

#[test]
fn one_task_does_not_open_the_breaker() {
    let mut breaker = Breaker::default();
    for _ in 0..20 {
        observe(&mut breaker, Outcome::Failure(&overload()), 1, 0);
    }
    assert_eq!((breaker.state(), breaker.failures()), (State::Closed, 1));
    for number in 2..4 {
        assert_eq!(breaker.state(), State::Closed);
        observe(&mut breaker, Outcome::Failure(&overload()), number, 0);
    }
    assert_eq!(breaker.state(), State::Open { until: at(10) });
}

#[test]
fn failures_of_one_worker_do_not_open_it() {
    let worker = |name| WorkerName::new(name).unwrap();
    let (sick, other, failure) = (worker("sick"), worker("other"), overload());
    let mut breaker = Breaker::default();
    let by_one =
        |breaker: &mut Breaker, number, on| breaker.is_seen_by_one(&POLICY, &failure, attempt(number).0, on);
    for number in 0..2 {
        assert!(!by_one(&mut breaker, number, &sick));
        observe(&mut breaker, Outcome::Failure(&failure), number, 0);
    }
    assert!(by_one(&mut breaker, 2, &sick) && by_one(&mut breaker, 3, &sick));
    assert!(!by_one(&mut breaker, 0, &sick), "a task that has failed already opens nothing");
    assert_eq!((breaker.state(), breaker.failures()), (State::Closed, 2));
    let mut works = breaker.clone();
    observe(&mut works, Outcome::Success, 9, 0);
    assert_eq!(works, Breaker::default(), "a success is no end of its failures");
    assert!(!by_one(&mut breaker, 4, &other));
    observe(&mut breaker, Outcome::Failure(&failure), 4, 0);
    assert_eq!(breaker.state(), State::Open { until: at(10) });
    // A probe is judged by itself.
    breaker.tick(&POLICY, at(10));
    assert!(!by_one(&mut breaker, 5, &sick));
}

#[test]
fn zero_failures_disable_the_breaker() {
    let (mut breaker, never) = (Breaker::default(), Policy { failures: 0, ..POLICY });
    for number in 0..100 {
        breaker.observe_outcome(&never, Outcome::Failure(&overload()), attempt(number), at(0), 1.0);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn only_machine_of_the_worker_counts() {
    for class in Class::ALL {
        let failure = Failure::new(class, "x");
        let counts = |program| matches!(Outcome::of_worker(&failure, program), Outcome::Failure(_));
        assert_eq!(counts(true), class.may_be_of_worker() && class != Class::Source, "{class:?}");
        assert_eq!(counts(false), class == Class::Environment, "{class:?}");
    }
}

#[test]
fn only_infrastructure_of_the_agent_counts() {
    for class in Class::ALL {
        let failure = Failure::new(class, "x");
        let counts = |of_agent, own| matches!(Outcome::of(&failure, of_agent, own), Outcome::Failure(_));
        let [auth, limit, start] = [
            class == Class::Auth,
            matches!(class, Class::RateLimit | Class::Overload),
            class == Class::Start,
        ];
        let own = |program, credentials, choice| Own { program, credentials, choice, ..Own::default() };
        assert_eq!(counts(true, own(false, false, false)), auth || limit || start, "{class:?}");
        assert_eq!(counts(false, own(false, false, false)), auth || limit, "{class:?}");
        assert_eq!(counts(true, own(true, false, false)), auth || limit, "{class:?}");
        assert_eq!(counts(false, own(false, false, true)), limit, "{class:?}");
        assert!(!counts(false, own(false, true, false)), "{class:?}");
    }
}
