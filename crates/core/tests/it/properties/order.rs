//! Order of ready tasks, and backoff.

use std::time::Duration;

use proptest::prelude::*;
use rota_core::failure::{Class, Failure};
use rota_core::rank::{HEAD_START, Priority, rank};
use rota_core::retry::{Decision, MAX_RETRY_AFTER, Policy};
use rota_core::task::Own;

use crate::harness::START;

fn priority() -> impl Strategy<Value = Priority> {
    (0..=10i32).prop_map(|value| Priority::new(value).unwrap())
}

proptest! {
    /// An earlier task is first unless the later one's priority outweighs the time between them.
    #[test]
    fn waiting_outweighs_priority(
        first in priority(),
        second in priority(),
        between in 0..1_000_000_000u64,
    ) {
        let between = Duration::from_micros(between);
        let worth = HEAD_START * u32::from(second.get().saturating_sub(first.get()));
        let is_first = rank(START, first) < rank(START + between, second);
        let wins = between > worth || first > second;
        prop_assert_eq!(is_first, wins);
    }

    #[test]
    fn equal_priorities_order_by_time(priority in priority(), a in any::<i32>(), b in any::<i32>()) {
        let at = |offset: i32| rota_core::Timestamp(START.0 + i64::from(offset));
        prop_assert_eq!(rank(at(a), priority).cmp(&rank(at(b), priority)), a.cmp(&b));
    }

    #[test]
    fn backoff_stays_within_bounds(
        initial in 0..10_000_000u64,
        max in 0..u64::MAX,
        count in any::<u32>(),
        jitter in any::<f64>(),
        retry_after in prop::option::of(any::<u64>()),
    ) {
        let policy = Policy {
            initial_backoff: Duration::from_millis(initial),
            max_backoff: Duration::from_secs(max),
            ..Policy::default()
        };
        let wait = policy.backoff(count, jitter);
        prop_assert!(wait <= policy.max_backoff);
        prop_assert!(count == 0 || wait >= policy.initial_backoff.min(policy.max_backoff) / 2);
        let mut failure = Failure::new(Class::RateLimit, "too many");
        failure.retry_after = retry_after.map(Duration::from_secs);
        if let Decision::Wait(wait) = policy.decide(&failure, 1, 1, Own::default(), jitter) {
            prop_assert!(wait <= (MAX_RETRY_AFTER + MAX_RETRY_AFTER / 10).max(policy.max_backoff));
            let retry_after = retry_after.map_or(Duration::ZERO, Duration::from_secs);
            prop_assert!(wait >= retry_after.min(MAX_RETRY_AFTER), "earlier than retry_after");
        } else {
            prop_assert!(false, "the first rate-limited attempt is retried");
        }
    }

    #[test]
    fn backoff_never_decreases(count in 1..40u32, jitter in 0.0..=1.0f64) {
        let policy = Policy::default();
        prop_assert!(policy.backoff(count, jitter) <= policy.backoff(count + 1, jitter));
    }
}
