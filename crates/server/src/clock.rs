//! The current time, in the core's representation.

use rota_core::Timestamp;

pub(crate) fn now() -> Timestamp {
    Timestamp(rota_telemetry::clock::unix_micros())
}
