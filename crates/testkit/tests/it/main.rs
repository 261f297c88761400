//! Whole clusters inside of one process.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod agents;
mod api;
mod basic;
mod cancel;
mod chaos;
mod claude;
mod dependencies;
mod doors;
mod idempotency;
mod input;
mod isolated;
mod limits;
mod metrics;
mod only_checked;
mod order;
mod protocol;
mod refusals;
mod restart;
mod secrets;
mod status;
mod stopping;
mod traces;
mod trust;
mod watch;
mod workers;
