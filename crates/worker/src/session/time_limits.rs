//! Time limits of an attempt, as its assignment has them. Knows no attempt.

use std::time::{Duration, UNIX_EPOCH};

use rota_proto::times::DEFAULT_CANCEL_GRACE;
use rota_proto::v1::Limits;
use rota_proto::worker::v1::Assign;
use tokio::time::Instant;

use super::undelivered::delivers;

/// Cap of an attempt's total time.
const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// Limits of an attempt, from the receipt of its assignment.
pub(super) struct TimeLimits {
    pub(super) deadline: Option<Instant>,
    pub(super) silence: Option<Duration>,
    pub(super) grace: Duration,
}

impl TimeLimits {
    pub(super) fn new(assign: &Assign, limits: &Limits) -> Self {
        let duration = |given: Option<pbjson_types::Duration>| given.and_then(|given| given.try_into().ok());
        Self {
            // A delivery has a limit of its own.
            deadline: time_left(assign).filter(|_| !delivers(assign)).map(|left| Instant::now() + left),
            silence: duration(limits.silence_timeout).filter(|limit: &Duration| !limit.is_zero()),
            grace: duration(limits.cancel_grace).unwrap_or(DEFAULT_CANCEL_GRACE),
        }
    }
}

/// Returns the time that an attempt has from the receipt of its assignment, capped at a year.
pub(super) fn time_left(assign: &Assign) -> Option<Duration> {
    match assign.time_left {
        Some(left) => Some(Duration::try_from(left).unwrap_or_default().min(MAX_TIME)),
        // A control plane of the previous version.
        None => assign.deadline.as_ref().map(time_until),
    }
}

/// Time from now until a wall-clock time, capped at a year.
fn time_until(at: &pbjson_types::Timestamp) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(at.seconds).unwrap_or(0));
    let at = UNIX_EPOCH.checked_add(seconds + Duration::from_nanos(u64::try_from(at.nanos).unwrap_or(0)));
    let left = at.and_then(|at| at.duration_since(rota_telemetry::clock::now()).ok()).unwrap_or_default();
    left.min(MAX_TIME)
}
