//! `rota bench` as a program of its own, which is built faster than `rota`. Takes the same arguments, with or without the
//! first word `bench`, so that either program can be compared with the other.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use rota_bench::Bench;
use rota_telemetry::{env, log};

/// The allocator of `rota`, which is measured here.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Benchmark a control plane on this machine
#[derive(Debug, Parser)]
#[command(name = "rota-bench", version, max_term_width = 110)]
struct Program {
    #[command(flatten)]
    bench: Bench,
    /// Format of the values on standard output
    #[arg(long, short, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Table for humans, with a row per metric
    #[default]
    Table,
    /// One JSON document with all values
    Json,
}

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "bench") {
        arguments.remove(1);
    }
    match run(Program::parse_from(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: Program) -> anyhow::Result<()> {
    let filter = env::var("ROTA_LOG").unwrap_or_else(|| "warn".to_owned());
    log::init(&log::Options { filter, format: log::Format::default() })?;
    if cfg!(debug_assertions) {
        eprintln!("warning: debug build: the values are not representative");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(program.bench.run(&|step| eprintln!("{step}")))?;
    runtime.shutdown_background();
    match outcome {
        None => {}
        Some(outcome) if program.output == Format::Json => {
            println!("{}", serde_json::to_string_pretty(&outcome.value)?);
        }
        Some(outcome) => println!("{}", outcome.table),
    }
    Ok(())
}
