//! Wall clock reads. Everything else receives time as a value.

use std::time::{SystemTime, UNIX_EPOCH};

pub fn now() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the only reader of the wall clock")]
    SystemTime::now()
}

/// Returns microseconds since the Unix epoch, or 0 for a clock set before it.
pub fn unix_micros() -> i64 {
    now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}
