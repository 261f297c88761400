//! Everything by which a running process is observed, and the one home of the clock, the environment and spawning.
//! Every component links this crate; it must not know tasks, agents or the API. Outside of tests, no other crate names
//! OpenTelemetry types, and Prometheus types only for the metrics that it registers.
//!
//! # What is here
//!
//! | module | owns |
//! | --- | --- |
//! | [`log`] | the process's subscriber: text or JSON lines on stderr, a filter that can be changed while it runs |
//! | [`metrics`] | [`metrics::Registry`]: what `/metrics` serves and what is pushed over OTLP |
//! | [`traces`] | spans: [`traces::Finished`] for what outlives a process, [`traces::ActiveSpan`] for what does not |
//! | [`trace`] | [`trace::TraceContext`]: the `traceparent` header |
//! | [`otlp`] | collector endpoints from the `OTEL_*` variables, and the transport to them |
//! | [`export`] | start and flush of both exporters |
//! | [`background_tasks`] | [`BackgroundTasks`]: health and metrics of every periodic or long-lived task |
//! | [`redact`] | removal of secrets from logs, spans, events and output |
//! | [`clock`], [`mod@env`] | reads of the wall clock and of the environment |
//! | [`memory`], [`control_groups`] | memory of the process: used, allowed and free |
//! | [`listen()`], [`free_addresses`] | listening sockets, of both address families; addresses for processes that listen later |
//! | [`root_cause()`] | the innermost cause of an error |
//! | [`spawn()`] | tokio tasks, each with a name and a policy for its end |
//!
//! # Data flow
//!
//! `log::init` and `export::init` run once, in `main`. Components register their metrics with a `Registry` and their
//! background tasks with a `BackgroundTasks`, and hold the handles: counting needs no global. A scrape
//! encodes the registry; a timer of the component pushes the same registry with [`metrics::Registry::export`]. Spans
//! go to the SDK's batch processor through [`traces::emit`]. Every log entry and every text of a span passes
//! [`redact`] last, so a value that an attempt declared secret ([`redact::Redactor::register`]) never leaves the process.
//! [`export::flush`] runs before exit and is bounded: a silent collector delays nothing.
//!
//! # How to add
//!
//! - **a metric**: create the `prometheus_client` handle next to what it counts, register it with name, unit, labels and
//!   help. `docs/reference/metrics.md` is generated from the descriptors.
//! - **a background task**: [`BackgroundTasks::register`] it, run it with [`spawn()`], and wrap each unit of work in
//!   [`background_tasks::TaskMonitor::activate`]. Status, metrics and the health of the control plane follow.
//! - **a kind of key to redact**: a prefix and a pattern in `redact/shapes.rs`, an example in its tests.
//!
//! `SystemTime::now`, `std::env::var` and `tokio::spawn` are disallowed elsewhere by `clippy.toml`: time and environment
//! enter as values, and no task ends unnoticed.
//!
//! Read [`background_tasks`] first, then [`metrics`] and [`redact`].

pub mod background_tasks;
pub mod clock;
pub mod control_groups;
pub mod env;
pub mod export;
mod listen;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod otlp;
pub mod redact;
mod root_cause;
mod spawn;
pub mod trace;
pub mod traces;

pub use background_tasks::BackgroundTasks;
pub use listen::{free_addresses, listen};
pub use root_cause::root_cause;
pub use spawn::{OnExit, finish, spawn};
