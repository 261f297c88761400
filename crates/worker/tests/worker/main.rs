//! The worker against a control plane that the test plays, and against real processes.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod command;
mod cut_off;
mod fake;
mod load;
mod orders;
mod processes;
mod supervise;
mod support;
