//! The program that workers in the integration tests start as their supervisor and for scripted steps: a test binary
//! has no hidden subcommands. An example, because `cargo test -p rota-server` builds examples, and they may use testkit.

use std::process::ExitCode;

fn main() -> ExitCode {
    rota_testkit::worker::run_hidden_subcommand(std::env::args_os().skip(1)).unwrap_or(ExitCode::from(2))
}
