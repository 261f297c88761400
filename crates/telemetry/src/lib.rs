//! What every running part shares to be seen and stopped: logs, metrics, named tasks, wall time,
//! environment reads, trace context. Knows nothing of tasks, agents or the API.

pub mod clock;
pub mod env;
pub mod log;
pub mod loops;
pub mod metrics;
pub mod redact;
mod spawn;
pub mod trace;

pub use loops::Loops;
pub use spawn::{OnExit, spawn};
