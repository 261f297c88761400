//! The `rota` program.

#![allow(unreachable_pub, reason = "a program has no outside: `pub` means for the other modules")]

mod args;
mod commands;
mod config;
mod context;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser;
use rota_telemetry::otlp;

fn main() -> ExitCode {
    // Workers start this very program again for what must happen before any thread is there.
    if let Some(code) = rota_worker::hidden(std::env::args_os().skip(1)) {
        return code;
    }
    let cli = args::Cli::parse();
    let talk = output::Talk::new(cli.globals.color);
    let ended = exit::block_on(commands::run(cli));
    // The last spans are those that tell how it ended.
    otlp::flush(otlp::FLUSH);
    exit::finish(&talk, ended)
}
