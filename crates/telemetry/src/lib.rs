//! What every running part shares to be seen and stopped: logs, metrics, named tasks, wall time,
//! environment reads, trace context, spans, the way to a collector. Knows nothing of tasks, agents or the API.
//! Everything of OpenTelemetry is in here.

pub mod clock;
pub mod env;
pub mod log;
pub mod loops;
pub mod metrics;
pub mod otlp;
pub mod redact;
mod spawn;
pub mod trace;
pub mod traces;

pub use loops::Loops;
pub use spawn::{OnExit, spawn};
