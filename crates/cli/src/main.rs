//! The `rota` program: the commands of users, and the components that it runs.
//!
//! # Kinds of commands
//!
//! - **Clients** (`run`, `apply`, `get`, `watch`, `top`, …) call a server. They share [`context::Context`]: client,
//!   namespace, output.
//!   [`cluster`] finds that of a kubeconfig for them.
//! - **Components** (`server`, `worker`, `operator`, `dev`) run until they are stopped. Their settings are declared in the
//!   crate that owns the component; `rota-settings` merges file, environment and flags, and [`config`] loads them.
//! - **Local commands** (`doctor`, `bench`, `completion`, `version`) need no server, or report why there is none.
//!
//! # Flow
//!
//! `main` parses [`args::Cli`], and [`dispatch`] sets up logs and telemetry and runs the command. A command returns its
//! [`exit::Exit`] code, or an error that [`exit::finish`] prints as `error:`, `cause:` and `hint:` lines.
//!
//! Standard output is data: [`output::Out`] writes tables, JSON or YAML. Standard error is for messages:
//! [`output::Reporter`]. Text from agents and servers is sanitized on its way to a terminal.
//!
//! # Adding a command
//!
//! 1. Write `commands/NAME.rs` with a clap `Args` struct and `run`; its `after_long_help` has examples, which a test
//!    checks for flags that do not exist.
//! 2. Add it to [`args::Command`] and to [`dispatch`].
//! 3. Add a test to `tests/processes`, and run `make docs`.
//!
//! Flag help is a noun phrase with unit and default. Read `commands/cancel.rs` first: it is short and complete.
//!
//! # Must not know
//!
//! Scheduling and task states are decided by `rota-core`, requests are retried by `rota-client`, manifests are validated by
//! `rota-crds`. No command opens the store except through [`commands`]`::serve`.

#![allow(unreachable_pub, reason = "a program has no public API: `pub` means for the other modules")]

mod args;
mod cluster;
mod commands;
mod config;
mod context;
mod dispatch;
mod exit;
mod globals;
mod login;
mod output;
mod private;
mod process;

use std::process::ExitCode;

use clap::Parser;
use rota_telemetry::export;

/// A third of the allocations of a task are freed by another thread. The system's allocator takes a lock for each, which
/// costs a sixth of the throughput.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Workers start this program again for work that must precede any thread.
    if let Some(code) = rota_worker::run_hidden_subcommand(std::env::args_os().skip(1)) {
        return code;
    }
    let cli = args::Cli::parse();
    let reporter = output::Reporter::new(cli.globals.color);
    let ended = exit::block_on(dispatch::run(cli));
    // Sends the last spans, which contain the outcome.
    export::flush(export::FLUSH_TIMEOUT);
    exit::finish(&reporter, ended)
}
