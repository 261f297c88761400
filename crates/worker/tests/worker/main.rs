//! The worker against a fake control plane, with real processes.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod command;
mod control_plane;
mod delivering;
mod load;
mod previous_results;
mod processes;
mod reconnect;
mod replay;
mod session;
mod supervise;
mod support;
