//! `rota bench`: how fast this is on this machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use rota_bench::{Options, Report, Round};

use crate::args::Globals;
use crate::exit::Exit;
use crate::output::{Out, Table, Talk};

/// Measure this machine
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  rota bench dispatch\n  rota bench dispatch --rounds 5 -o json")]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum What {
    /// Tasks a second, and how soon a task is at its worker
    Dispatch(Dispatch),
}

/// Measure tasks a second and how soon a task is at its worker, with everything on this machine
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rota bench dispatch
  rota bench dispatch --rounds 5 --folder . -o json
  rota bench dispatch --idle-workers 1000 --rounds 1

Each round measures, one after the other, the disk alone, the store alone and the whole control
plane, so that all of them meet the same disk. The control plane, its clients and its workers share
this process; only with --idle-workers is it a process of its own.")]
struct Dispatch {
    /// Clients that hand in tasks, each waiting for its creation's commit
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,
    /// Workers that do them
    #[arg(long, value_name = "N", default_value_t = 4)]
    workers: usize,
    /// Slots of each worker
    #[arg(long, value_name = "N", default_value_t = 64)]
    slots: usize,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// How long each rate is measured in a round, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// Measure what so many idle workers cost, too
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle_workers: usize,
    /// Where the store lies; a temporary folder otherwise. The disk decides most figures.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Bench {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let What::Dispatch(dispatch) = self.what;
        let talk = Talk::new(globals.color);
        if cfg!(debug_assertions) {
            talk.warn("this program was built without optimisations; the figures say little");
        }
        let options = Options {
            clients: dispatch.clients,
            workers: dispatch.workers,
            slots: dispatch.slots,
            rounds: dispatch.rounds,
            span: Duration::from_secs(dispatch.seconds),
            idle_workers: dispatch.idle_workers,
            program: std::env::current_exe().context("this program's own path is not known")?,
            folder: dispatch.folder,
        };
        let report = rota_bench::run(options, |step| talk.say(step)).await?;
        let out = Out::new(globals.output, globals.color);
        if out.for_eyes() {
            show(&out, &report)?
        } else {
            out.value(&report)?
        }
        Ok(Exit::Ok)
    }
}

/// Name, unit, and where a round has it.
type Figure = (&'static str, &'static str, fn(&Round) -> f64);

fn show(out: &Out, report: &Report) -> anyhow::Result<()> {
    let mut table = Table::new(&["FIGURE", "MIN", "MEDIAN", "MAX", "UNIT"]);
    let figures: [Figure; 11] = [
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
    for (name, unit, read) in figures {
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
