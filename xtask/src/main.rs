//! `cargo xtask`: generated files, and the checks of this repository that no published tool makes. Not needed to build or
//! run Rota.
//!
//! # Commands
//!
//! | Command | Does | Run by |
//! | --- | --- | --- |
//! | `cargo xtask check` | checks directions between crates, shapes of calls, and that `crds/` is up to date | `make lint`, CI |
//! | `cargo xtask docs` | writes `docs/reference/` from the code | `make docs`; CI with `--check` |
//! | `cargo xtask crds` | writes `crds/` and the chart's copy from the code | `make docs`; CI by `check` |
//!
//! # What belongs here
//!
//! A check belongs here only if no well-kept tool has it. `scripts/lint` runs those tools: cargo-deny (licenses, banned and
//! duplicate crates), buf (style and compatibility of protos), lychee (links), typos (words), shellcheck, git and grep (white
//! space, heads of files, paths of one machine). Lints of Rust code are in `[workspace.lints]` and `clippy.toml`. Left are:
//!
//! - [`check::directions`]: which crate may use which. cargo-deny bans crates for the whole tree, not per crate with a reason.
//! - [`check::protos`]: shapes of calls after Google's AIPs, which buf does not have.
//! - [`docs`]: pages made from Rust values (errors, metrics, failure classes, schemas) or from the program's own `--help`,
//!   and the API reference with links between both packages.
//!
//! # Data flow
//!
//! A check returns a list of problems, one sentence each. A generator returns texts by path, and [`generated`] writes or
//! compares them. `main` prints the problems and fails if there are any.
//!
//! # How to add
//!
//! - A page: a file in `docs/` with a function that returns its text, and a line in `docs::pages`.
//! - A check: a file in `check/` with a function that returns problems, and a line in `check::run`.
//!
//! Read `check/mod.rs` and `docs/mod.rs` first.

mod check;
mod docs;
mod generated;
mod protos;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Generators and checks of this repository",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check directions between crates, shapes of calls and custom resource definitions
    Check,
    /// Write the reference under docs/reference from the code
    Docs {
        /// Compare instead of writing; fail on a difference
        #[arg(long)]
        check: bool,
        /// `rota` program whose help is printed [default: built from this workspace]
        #[arg(long, value_name = "FILE")]
        rota: Option<PathBuf>,
    },
    /// Write the custom resource definitions from the code
    Crds {
        /// Compare instead of writing; fail on a difference
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Check => check::run(),
        Command::Docs { check, rota } => docs::run(check, rota),
        Command::Crds { check } => docs::crds(check),
    };
    let problems = match result {
        Ok(problems) if problems.is_empty() => return ExitCode::SUCCESS,
        Ok(problems) => problems,
        Err(error) => vec![format!("{error:#}")],
    };
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    ExitCode::FAILURE
}
