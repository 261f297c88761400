//! What every running part shares to be seen and stopped: logs, metrics, named tasks, wall time,
//! environment reads, trace context, spans. Knows nothing of tasks, agents or the API.

pub mod clock;
pub mod env;
pub mod log;
pub mod metrics;
mod spawn;
pub mod trace;
pub mod traces;

pub use spawn::{OnExit, spawn};
