//! Benchmarks of a control plane on one machine: `rota bench`, and the cost of tracing.
//!
//! # Benchmarks
//!
//! | `rota bench` | module | question |
//! | --- | --- | --- |
//! | `dispatch` | `dispatch` | tasks per second in a closed loop, the store alone (`raw`), the disk (`disk`), idle dispatch |
//! | `load` | `load` | latency in an open loop, on a `schedule`, corrected for coordinated omission |
//! | `idle` | `idle` | memory and processor time of idle workers, their return after a restart |
//! | `queue` | `queue` | dispatch, memory and start with a deep queue |
//! | `watchers` | `watchers` | throughput with streams of all tasks |
//! | `workflow` | `workflow`, `short_workflows` | steps per second of workflows, next to plain tasks; workflows of three steps |
//! | `prune` | `prune`, `database` | size of a long log on PostgreSQL, and commits while it is removed |
//! | `snapshot` | `snapshot`, `database` | commits on PostgreSQL under a snapshot that stays open |
//! | `replicas` | `replicas`, `replica` | calls that a replica passes on, takeovers |
//!
//! Workers are real (`plane`), and their attempts run in a runtime that does nothing (`runtime`). In `dispatch` the control
//! plane shares the process; elsewhere it is a process of its own (`control_plane`), so that its memory and processor time can
//! be measured and it can be restarted. `prune` and `snapshot` call the store itself (`raw`), without a control plane.
//!
//! # Data flow
//!
//! A benchmark is a `scenario::Scenario`: options, which are its flags and a part of its report, and one round of measurements
//! in an empty directory. `scenario` runs the rounds and serializes them to JSON; the table (`metrics`), the comparison of two
//! builds (`compare`) and the plot (`plot`) read only that JSON. A latency is an HDR histogram (`report`).
//!
//! [`tracing`] compares the processor time per task with and without trace export; [`instructions`] runs a fixed number of
//! tasks, whose instructions CI counts.
//!
//! # How to add a benchmark
//!
//! Implement `Scenario` in a module: a metric is a name, a unit and a JSON pointer into a round. Add the subcommand to
//! [`Bench`], run `make docs`, and describe it in `docs/performance.md`. End every wait with a limit.
//!
//! Read `scenario` first, then `dispatch`. This crate knows nothing of pools, `rota-local` or the operator: workers are started
//! directly.

mod args;
mod batches;
mod compare;
mod control_plane;
mod database;
mod disk;
mod dispatch;
mod idle;
pub mod instructions;
mod load;
mod metrics;
mod plane;
mod plot;
mod prune;
mod queue;
mod raw;
mod replica;
mod replicas;
mod report;
mod runtime;
mod scenario;
mod schedule;
mod short_workflows;
mod snapshot;
pub mod tracing;
mod watchers;
mod workflow;

pub use args::Bench;
pub use metrics::Table;
pub use scenario::Outcome;
