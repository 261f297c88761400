//! Integration tests of the control plane: whole clusters inside one process.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod agents;
mod api;
mod artifacts;
mod auth;
mod basic;
mod breakers;
mod cancel;
mod chaos;
mod claude;
mod dependencies;
mod idempotency;
mod input;
mod isolation;
mod large_logs;
mod large_results;
mod limits;
mod managed;
mod metrics;
mod order;
mod outages;
mod overrides;
mod protocol;
mod replay;
mod reports;
mod restart;
mod secrets;
mod shutdown;
mod sick_workers;
mod status;
mod traces;
mod trust;
mod validate_only;
mod validation;
mod watch;
mod workers;
