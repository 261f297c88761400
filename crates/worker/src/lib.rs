//! A worker: one process that serves an agent. It keeps a session with the control plane, runs
//! attempts through runtimes, and proves that nothing of an attempt is left when it ends.
//! It knows the API's types, and nothing of stores, scheduling or Kubernetes.

mod metrics;
pub mod runtimes;
mod session;
pub mod supervise;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

pub use session::{Error, Options, Runtimes};

/// Runs one of the hidden subcommands that a worker starts its own binary with, if `args` (without
/// the program's name) ask for one. To be called before any runtime, thread or argument parser is.
pub fn hidden(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter();
    let first = args.next()?;
    if first == supervise::SUBCOMMAND {
        Some(supervise::supervisor_main(args))
    } else if first == runtimes::scripted::SUBCOMMAND {
        Some(runtimes::scripted::script_step_main(args))
    } else {
        None
    }
}
