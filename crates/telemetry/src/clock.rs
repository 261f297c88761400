//! The one home of wall time. Everything else gets time as a value from here.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time now.
pub fn now() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one home of wall time")]
    SystemTime::now()
}

/// Microseconds since the Unix epoch; 0 for a clock set before it.
pub fn unix_micros() -> i64 {
    now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}
