//! End-to-end tests on a real cluster, one module per group and one file per topic. `make e2e` runs them; on their own
//! they are ignored, since they need root and a cluster. Each test has a namespace of its own.
//!
//! `core` runs on every change, together with one of the other groups; `make e2e-full` runs all of them.
#![expect(clippy::unwrap_used, reason = "test helpers are tests")]

mod core;
mod lifecycle;
mod resilience;
mod security;
mod trouble;
mod workloads;
