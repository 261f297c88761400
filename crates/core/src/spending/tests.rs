//! Tests of periods, books and warnings.

use std::time::Duration;

use super::*;

/// Noon of a Tuesday in UTC, 2026-11-24.
const NOON: Timestamp = Timestamp(1_795_521_600_000_000);
const HOUR: Duration = Duration::from_hours(1);

fn account() -> Account {
    Account::new(Namespace::new("n").unwrap(), Scope::Namespace)
}

fn budget(daily: i64, monthly: i64) -> Budget {
    let limit = |micro: i64| Some(micro).filter(|micro| *micro > 0);
    Budget { daily: limit(daily), monthly: limit(monthly), ..Budget::default() }
}

#[test]
fn periods_end_in_utc() {
    let day = |days: i64| Timestamp(days * DAY_MICROS);
    let noon = NOON.0.div_euclid(DAY_MICROS);
    assert_eq!(Period::Day.end(NOON), NOON + HOUR * 12);
    assert_eq!(Period::Day.end(NOON + HOUR * 12), NOON + HOUR * 36);
    assert_eq!(Period::Month.end(NOON), day(noon + 7), "December begins");
    assert_eq!(Period::Month.end(day(noon + 7)), day(noon + 7 + 31), "of the next year");
    // Leap days, and the day before.
    let february = |days: i64| Period::Month.end(day(days)).0 / DAY_MICROS - days;
    assert_eq!(february(19_754), 29, "2024-02-01");
    assert_eq!(february(47_540), 1, "2100-02-28");
    for days in -1000..40_000 {
        let end = Period::Month.end(day(days)).0 / DAY_MICROS - days;
        assert!((1..=31).contains(&end), "{days}: {end}");
        let next = Period::Month.number(day(days + end));
        assert_eq!(next, Period::Month.number(day(days)) + 1, "{days}");
    }
}

#[test]
fn each_period_has_its_own_book() {
    let mut account = account();
    account.add(70, 70, NOON);
    account.add(20, 20, NOON + HOUR * 11);
    let tomorrow = NOON + HOUR * 12;
    assert_eq!(account.spent(Period::Day, tomorrow), 0);
    assert_eq!(account.spent(Period::Month, tomorrow), 90);
    account.add(5, 5, tomorrow);
    assert_eq!([Period::Day, Period::Month].map(|period| account.spent(period, tomorrow)), [5, 95]);
    // A clock that was set back opens no new book.
    account.add(1, 1, NOON);
    assert_eq!(account.spent(Period::Day, NOON), 6);
    let budget = budget(100, 96);
    assert_eq!(account.exhausted(&budget, tomorrow), Some(Period::Month));
    assert_eq!(account.exhausted(&budget, tomorrow + HOUR * 24 * 7), None);
}

#[test]
fn attempts_fit_with_what_is_reserved() {
    let mut account = account();
    let budget = budget(100, 0);
    account.add(40, 40, NOON);
    assert_eq!(account.blocked(&budget, 30, 30, NOON), None);
    assert_eq!(account.blocked(&budget, 31, 30, NOON), Some(Period::Day));
    assert_eq!(account.room(&budget, 31, NOON), Some(29));
    // One that usually costs more than the limit has it for itself.
    assert_eq!(account.blocked(&budget, 0, 1000, NOON), Some(Period::Day));
    assert_eq!(account.blocked(&budget, 0, 1000, NOON + HOUR * 12), None);
    // One of unknown cost runs until the limit is reached.
    assert_eq!(account.blocked(&budget, 60, 0, NOON), None);
    account.add(60, 60, NOON);
    assert_eq!(account.blocked(&budget, 0, 0, NOON), Some(Period::Day));
    assert_eq!(account.blocked(&Budget::default(), 0, 1000, NOON), None);
}

#[test]
fn warning_comes_once_per_period() {
    let mut account = account();
    let budget = budget(100, 1000);
    account.add(79, 79, NOON);
    assert_eq!(account.take_warning(&budget, NOON), None);
    account.add(1, 1, NOON);
    let warning = account.take_warning(&budget, NOON).unwrap();
    assert_eq!(warning, "the namespace has spent $0.00008 of its daily budget of $0.0001");
    assert_eq!(account.take_warning(&budget, NOON), None);
    account.add(90, 90, NOON + HOUR * 12);
    assert!(account.take_warning(&budget, NOON + HOUR * 12).is_some());
    account.forget_warnings();
    assert!(account.take_warning(&budget, NOON + HOUR * 12).is_some());
}

#[test]
fn usual_cost_follows_the_attempts() {
    let mut account = account();
    account.observe_attempt(800);
    assert_eq!(account.usual, 800);
    account.observe_attempt(0);
    assert_eq!(account.usual, 700);
    for _ in 0..50 {
        account.observe_attempt(80);
    }
    assert!((80..=90).contains(&account.usual), "{}", account.usual);
}

#[test]
fn turn_is_the_dearest_of_late() {
    let mut account = Account { scope: Scope::Agent(AgentName::new("a").unwrap()), ..account() };
    for cost in [80, 10, 90] {
        account.add(cost, cost, NOON);
    }
    assert_eq!(account.turn, 90);
    for _ in 0..50 {
        account.add(10, 10, NOON);
    }
    assert!((10..=20).contains(&account.turn), "{}", account.turn);
    // Several turns that are reported at the same time, and what comes late.
    account.add(1000, 20, NOON);
    account.add(1000, 0, NOON);
    assert_eq!(account.turn, 20);
    account.correct(Period::Day, 0, NOON);
    assert_eq!(account.turn, 0);
}
