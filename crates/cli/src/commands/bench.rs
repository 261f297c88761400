//! `rota bench`: benchmarks on this machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use rota_bench::{Options, Report, Round};

use crate::exit::Exit;
use crate::globals::Globals;
use crate::output::{Out, Reporter, Table};

/// Benchmark this machine
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  rota bench dispatch\n  rota bench dispatch --rounds 5 -o json")]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

/// Benchmark to run.
#[derive(Debug, Subcommand)]
enum What {
    /// Measure task throughput and dispatch latency
    Dispatch(Dispatch),
}

/// Measure task throughput and dispatch latency, with all components on this machine
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rota bench dispatch
  rota bench dispatch --rounds 5 --folder . -o json
  rota bench dispatch --idle-workers 1000 --rounds 1

Each round measures the disk, the store and the whole control plane in turn, so that all three see \
the same disk. The control plane, its clients and its workers share this process; with --idle-workers \
the control plane is a process of its own.")]
struct Dispatch {
    /// Number of clients that create tasks, each waiting for the commit
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    clients: usize,
    /// Number of workers
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    workers: usize,
    /// Slots per worker
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    slots: usize,
    /// Number of rounds
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    rounds: usize,
    /// Duration of each measurement of a rate, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// Number of idle workers whose cost is measured too; 0 skips this
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    idle_workers: usize,
    /// Directory of the store, whose disk determines most values [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Bench {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let What::Dispatch(dispatch) = self.what;
        let reporter = Reporter::new(globals.color);
        if cfg!(debug_assertions) {
            reporter.warn("debug build: the values are not representative");
        }
        let options = Options {
            clients: dispatch.clients,
            workers: dispatch.workers,
            slots: dispatch.slots,
            rounds: dispatch.rounds,
            span: Duration::from_secs(dispatch.seconds),
            idle_workers: dispatch.idle_workers,
            program: std::env::current_exe().context("failed to determine the path of this program")?,
            folder: dispatch.folder,
        };
        let report = rota_bench::run(options, |step| reporter.line(step)).await?;
        let out = Out::new(globals.output, globals.color);
        if out.is_human() {
            print(&out, &report)?
        } else {
            out.value(&report)?
        }
        Ok(Exit::Ok)
    }
}

/// Name, unit, and accessor of a measured value.
type Metric = (&'static str, &'static str, fn(&Round) -> f64);

fn print(out: &Out, report: &Report) -> anyhow::Result<()> {
    let mut table = Table::new(&["METRIC", "MIN", "MEDIAN", "MAX", "UNIT"]);
    let metrics: [Metric; 11] = [
        ("completed tasks", "/s", |round| round.completed_per_second),
        ("durable creations", "/s", |round| round.created_per_second),
        ("store alone", "tasks/s", |round| round.raw_tasks_per_second),
        ("completed / store alone", "", |round| round.ratio),
        ("creation p50, under load", "ms", |round| round.creation.millis(0.5)),
        ("creation p99, under load", "ms", |round| round.creation.millis(0.99)),
        ("dispatch p50, idle", "ms", |round| round.dispatch_idle.millis(0.5)),
        ("dispatch p99, idle", "ms", |round| round.dispatch_idle.millis(0.99)),
        ("fsync p50", "ms", |round| round.fsync.millis(0.5)),
        ("fsync p99", "ms", |round| round.fsync.millis(0.99)),
        ("dispatch p50 - fsync p50", "ms", |round| round.dispatch_idle.millis(0.5) - round.fsync.millis(0.5)),
    ];
    for (name, unit, read) in metrics {
        let mut values: Vec<_> = report.rounds.iter().map(read).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).map_or(String::new(), |value| number(*value));
        let last = values.len().saturating_sub(1);
        table.row([name.to_owned(), at(0), at(last / 2), at(last), unit.to_owned()]);
    }
    out.table(&table)?;
    if let Some(idle) = &report.idle {
        out.line(&format!(
            "{} idle workers: {} MB resident, {:.1} % of one core",
            idle.workers,
            idle.resident_bytes / 1_000_000,
            idle.core_share * 100.0
        ))?;
    }
    Ok(())
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
