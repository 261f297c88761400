//! The pure heart of Rota: what tasks, attempts, workers and pools are, and every rule by which
//! they change. No IO, no clock, no randomness, no async: ids, time and jitter come in as values.
#![warn(missing_docs)]

pub mod agent;
pub mod breaker;
pub mod failure;
pub mod ids;
pub mod rank;
pub mod retry;
pub mod scaling;
pub mod target;
pub mod task;
pub mod time;
pub mod usage;

pub use ids::{AgentName, Epoch, Fence, Namespace, RouteId, TaskId, WorkerName};
pub use time::Timestamp;
