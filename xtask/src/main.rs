//! `cargo xtask`: what keeps the project honest. Checks that no compiler makes, and the files that are
//! generated from the code. Must not be needed for building or running Rota.

mod check;
mod crds;
mod docs;
mod protos;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Chores of the project", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check directions between crates, dependencies, licences, files and links
    Check,
    /// Write the reference under docs/reference from the code
    Docs {
        /// Write nothing; fail if something would change
        #[arg(long)]
        check: bool,
        /// The `rota` program whose help is printed; built when not given
        #[arg(long, value_name = "FILE")]
        rota: Option<PathBuf>,
    },
    /// Write the definitions of custom resources under crds/ from the code
    Crds {
        /// Write nothing; fail if something would change
        #[arg(long)]
        check: bool,
    },
    /// Check the style of the API's protos
    LintProtos,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Check => check::run(),
        Command::Docs { check, rota } => docs::run(check, rota),
        Command::Crds { check } => crds::run(check),
        Command::LintProtos => protos::run(),
    };
    match result {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in &problems {
                eprintln!("error: {problem}");
            }
            eprintln!("{} problem(s)", problems.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
