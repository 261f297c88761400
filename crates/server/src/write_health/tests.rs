//! Health of writes.

use super::*;

#[test]
fn write_error_is_kept_until_success() {
    let health = WriteHealth::default();
    let full = Error::Unavailable { message: "disk full".to_owned(), hint: "make room" };
    health.observe::<()>(&Err(full));
    let (message, hint) = health.error().unwrap();
    assert!(message.contains("disk full") && hint == "make room");
    health.observe::<()>(&Err(Error::Closed));
    assert!(health.error().is_some());
    health.observe(&Ok(()));
    assert_eq!(health.error(), None);
}

#[test]
fn only_a_time_without_writes_holds_deadlines() {
    let (start, grace) = (Instant::now(), Duration::from_secs(10));
    let at = |millis| start + Duration::from_millis(millis);
    let mut outage = Outage::default();
    // One write that does not fit, again and again, among others that do.
    for millis in (0..60_000).step_by(500) {
        outage.failed(at(millis));
        outage.succeeded(at(millis + 10));
        assert_eq!(outage.held_until(at(millis + 10), grace), None);
    }
    outage.failed(at(70_000));
    outage.failed(at(75_000));
    assert_eq!(outage.held_until(at(80_000), grace), Some(at(90_000)), "it lasts");
    outage.succeeded(at(81_000));
    assert_eq!(outage.held_until(at(90_000), grace), Some(at(91_000)));
    assert_eq!(outage.held_until(at(91_000), grace), None);
}

#[test]
fn failed_writes_are_counted() {
    let health = WriteHealth::default();
    let full = Error::Unavailable { message: "the disk is full".to_owned(), hint: "free some space" };
    for outcome in [Ok(()), Err(full), Err(Error::Closed), Ok(())] {
        health.observe(&outcome);
    }
    assert_eq!((health.failures.get(), health.error()), (1, None));
}
