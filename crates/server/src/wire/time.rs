//! Times and durations of the wire.

use std::time::Duration;

use rota_core::Timestamp;
use rota_proto::num;
use tonic::Status;

use super::status::invalid;

/// Longest duration that any field takes.
const MAX: Duration = rota_proto::limits::MAX_TIMEOUT;

pub(crate) fn timestamp(at: Timestamp) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: at.0.div_euclid(1_000_000),
        nanos: i32::try_from(at.0.rem_euclid(1_000_000) * 1000).unwrap_or(0),
    }
}

/// Returns a time as text, in UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let timestamp = timestamp(at);
    prost_types::Timestamp { seconds: timestamp.seconds, nanos: timestamp.nanos }.to_string()
}

pub(crate) fn from_timestamp(at: &pbjson_types::Timestamp) -> Timestamp {
    Timestamp(at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1000))
}

pub(crate) fn duration(duration: Duration) -> pbjson_types::Duration {
    pbjson_types::Duration {
        seconds: num::to_i64(duration.as_secs()),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration that is not negative and at most a week.
pub(crate) fn from_duration(
    field: &str,
    given: Option<&pbjson_types::Duration>,
) -> Result<Option<Duration>, Status> {
    let Some(given) = given else { return Ok(None) };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(given.seconds), u32::try_from(given.nanos)) else {
        return Err(invalid(field, "must not be negative"));
    };
    let duration = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(u64::from(nanos)));
    if duration > MAX { Err(invalid(field, "must not be longer than 7 days")) } else { Ok(Some(duration)) }
}
