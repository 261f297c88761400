//! The `rota` program.

#![allow(unreachable_pub, reason = "a program has no outside: `pub` means for the other modules")]

mod args;
mod commands;
mod context;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let talk = output::Talk::new(cli.globals.color);
    let result = exit::runtime().and_then(|runtime| {
        let result = runtime.block_on(commands::run(cli));
        // Whoever still reads from standard input must not keep the program.
        runtime.shutdown_background();
        result
    });
    exit::finish(&talk, result)
}
