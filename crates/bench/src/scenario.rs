//! What all benchmarks share: options, rounds on fresh directories, reports, comparison and plot.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::compare;
use crate::metrics::{Metric, Table};
use crate::plot;
use crate::report::Report;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Common {
    /// Number of rounds; with --against, of pairs [default: 3; idle, queue, replicas, snapshot and prune: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: Option<u32>,
    /// Directory of the store, whose disk determines most values [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Other build of rota to compare with, measured in turns with this one
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) against: Option<PathBuf>,
    /// File for a plot of the latency percentiles, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// Benchmark: options that are serialized into its report, and one round of measurements.
pub(crate) trait Scenario: Serialize {
    /// Name of its subcommand of `rota bench`.
    const NAME: &'static str;
    const ROUNDS: u32 = 3;
    const METRICS: &'static [Metric];
    type Round: Serialize;

    fn common(&self) -> &Common;
    async fn round(&self, round: &RoundContext<'_>) -> Result<Self::Round>;
}

/// Number and directory of a round.
pub(crate) struct RoundContext<'a> {
    /// Number of the round, from 1.
    pub(crate) number: u32,
    pub(crate) of: u32,
    /// Empty directory, removed after the round.
    pub(crate) folder: &'a Path,
    pub(crate) report: &'a dyn Fn(&str),
}

impl RoundContext<'_> {
    /// Reports a step with the number of its round.
    pub(crate) fn progress(&self, step: &str) {
        (self.report)(&format!("round {} of {}: {step}", self.number, self.of));
    }

    /// Creates a directory in that of the round.
    pub(crate) fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::create_dir(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(path)
    }

    /// Measures the disk of the store.
    pub(crate) async fn fsync(&self) -> Result<crate::report::Latency> {
        self.progress("the disk");
        let folder = self.folder.to_owned();
        tokio::task::spawn_blocking(move || crate::disk::fsync(&folder)).await?
    }
}

/// Values of a run or of a comparison.
#[derive(Debug)]
pub struct Outcome {
    pub value: Value,
    /// The most important values, for humans.
    pub table: Table,
}

/// Runs a benchmark, or compares two builds by it, and calls `report` with each step.
pub(crate) async fn run<S: Scenario>(scenario: &S, report: &dyn Fn(&str)) -> Result<Outcome> {
    let common = scenario.common();
    let (outcome, series) = match &common.against {
        Some(program) => compare::run(scenario, program, report).await?,
        None => {
            let value = rounds(scenario, report).await?;
            let series = plot::series("", [&value])?;
            (Outcome { table: Table::of(S::METRICS, &value), value }, series)
        }
    };
    if let Some(path) = &common.plot {
        let svg = plot::svg(&format!("rota bench {}", S::NAME), &series)?;
        std::fs::write(path, svg).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(outcome)
}

async fn rounds<S: Scenario>(scenario: &S, report: &dyn Fn(&str)) -> Result<Value> {
    let common = scenario.common();
    let parent = common.folder.clone().unwrap_or_else(std::env::temp_dir);
    let of = common.rounds.unwrap_or(S::ROUNDS);
    let mut rounds = Vec::new();
    for number in 1..=of {
        let folder = tempfile::tempdir_in(&parent)
            .with_context(|| format!("failed to create a directory in {}", parent.display()))?;
        let round = RoundContext { number, of, folder: folder.path(), report };
        rounds.push(scenario.round(&round).await?);
    }
    Ok(serde_json::to_value(Report::new(S::NAME, scenario, rounds))?)
}
