//! Benchmarks of a control plane on one machine: task throughput, dispatch latency, cost of idle workers and of
//! tracing.
//!
//! [`run`] is `rota bench dispatch`. Each [`Round`] measures, one after the other and on the same disk:
//!
//! 1. `disk`: the latency of making 4 KiB durable, which bounds everything else;
//! 2. `raw`: complete task lifecycles in the store alone, without gRPC and dispatch;
//! 3. `dispatch`: the same through a control plane with workers (`plane`), whose attempts run in a runtime
//!    that succeeds immediately (`runtime`): first one task at a time on an idle system, then under load.
//!
//! `idle` starts the control plane as a process of its own and measures its memory and processor time with
//! many idle workers. [`tracing`] compares the processor time per task with and without trace export.
//!
//! A [`Report`] holds the values of all rounds, for JSON output and for the table of the CLI. Compare values
//! only with others of the same machine and disk, interleaved in time.
//!
//! To add a measurement, write a module that returns its values, call it from each round in `dispatch`, and
//! add a field to [`Round`]. Read `dispatch` first.
//!
//! This crate knows nothing of pools, `rota-local` or the operator: workers are started directly.

mod disk;
mod dispatch;
mod idle;
mod plane;
mod raw;
mod report;
mod runtime;
pub mod tracing;

pub use dispatch::{Options, run};
pub use report::{Latency, Report, Round};
