//! Comparison of two builds: pairs of runs, each in a process of its own, in the order A B B A, and ratios within pairs.
//! A build may be older: metrics that it lacks are left out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::metrics::{Metric, Table, median, number, quantile};
use crate::plot::{self, Series};
use crate::scenario::{Outcome, Scenario};

/// Limit of one run of a program.
const RUN_TIMEOUT: Duration = Duration::from_secs(3600);

/// Runs all pairs, and returns the lines of a plot too.
pub(crate) async fn run<S: Scenario>(
    scenario: &S,
    program: &Path,
    report: &dyn Fn(&str),
) -> Result<(Outcome, Vec<Series>)> {
    let own = std::env::current_exe().context("failed to determine the path of this program")?;
    let programs = [own, program.to_owned()];
    let arguments = arguments(scenario)?;
    let pairs = scenario.common().rounds.unwrap_or(S::ROUNDS);
    let mut reports: Vec<[Value; 2]> = Vec::new();
    for pair in 0..pairs {
        let mut both = [Value::Null, Value::Null];
        for side in order(pair) {
            report(&format!("pair {} of {pairs}: {}", pair + 1, programs[side].display()));
            both[side] = child(&programs[side], S::NAME, &arguments).await?;
        }
        reports.push(both);
    }
    let metrics = compare(S::METRICS, &reports);
    let mut series = plot::series("this: ", reports.iter().map(|[this, _]| this))?;
    series.extend(plot::series("against: ", reports.iter().map(|[_, against]| against))?);
    let table = table(&metrics);
    let value = json!({ "benchmark": S::NAME, "programs": programs, "metrics": metrics, "pairs": reports });
    Ok((Outcome { value, table }, series))
}

/// Order of a pair's runs, which alternates: the second run meets another state of the machine.
fn order(pair: u32) -> [usize; 2] {
    if pair.is_multiple_of(2) { [0, 1] } else { [1, 0] }
}

/// Returns the options of one round as flags. All are set: the defaults of another build may differ.
fn arguments<S: Scenario>(scenario: &S) -> Result<Vec<OsString>> {
    let Value::Object(options) = serde_json::to_value(scenario)? else { bail!("options are not an object") };
    let mut arguments = vec!["--rounds".into(), "1".into()];
    for (key, value) in options {
        arguments.push(format!("--{}", key.replace('_', "-")).into());
        arguments.push(value.as_str().map_or_else(|| value.to_string(), str::to_owned).into());
    }
    if let Some(folder) = &scenario.common().folder {
        arguments.extend(["--folder".into(), OsString::from(folder)]);
    }
    Ok(arguments)
}

/// Runs a benchmark of a program and returns its report.
async fn child(program: &PathBuf, name: &str, arguments: &[OsString]) -> Result<Value> {
    let output = tokio::process::Command::new(program)
        .args(["bench", name])
        .args(arguments)
        .args(["--output", "json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(RUN_TIMEOUT, output)
        .await
        .with_context(|| format!("{} bench {name} timed out", program.display()))?
        .with_context(|| format!("failed to start {}", program.display()))?;
    if !output.status.success() {
        bail!("{} bench {name} failed: {}", program.display(), output.status);
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} bench {name} printed no report", program.display()))
}

/// Metric that two builds report.
#[derive(Debug, Serialize)]
struct Compared {
    name: &'static str,
    unit: &'static str,
    /// Median of this build over the pairs, as `against` is of the other one.
    this: f64,
    against: f64,
    /// Lower quartile, median and upper quartile of the ratio this / against within a pair.
    ratio: [f64; 3],
}

/// Compares the metrics that both builds report.
fn compare(metrics: &[Metric], reports: &[[Value; 2]]) -> Vec<Compared> {
    let compared = |metric: &Metric| {
        let (mut this, mut against, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in reports {
            let [a, b] = [&pair[0], &pair[1]].map(|report| metric.values(report));
            if a.is_empty() || b.is_empty() {
                continue;
            }
            let (a, b) = (median(&a), median(&b));
            this.push(a);
            against.push(b);
            if b != 0.0 {
                ratios.push(a / b);
            }
        }
        let ratio = [0.25, 0.5, 0.75].map(|at| quantile(&ratios, at));
        (!ratios.is_empty()).then(|| Compared {
            name: metric.name,
            unit: metric.unit,
            this: median(&this),
            against: median(&against),
            ratio,
        })
    };
    metrics.iter().filter_map(compared).collect()
}

fn table(metrics: &[Compared]) -> Table {
    let row = |metric: &Compared| {
        let mut cells = vec![metric.name.to_owned(), number(metric.this), number(metric.against)];
        cells.extend(metric.ratio.map(|ratio| format!("{ratio:.3}")));
        cells.push(metric.unit.to_owned());
        cells
    };
    Table {
        header: vec!["METRIC", "THIS", "AGAINST", "RATIO Q1", "RATIO", "RATIO Q3", "UNIT"],
        rows: metrics.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::dispatch::Dispatch;
    use crate::load::Load;

    #[derive(Debug, Parser)]
    struct Program<O: clap::Args> {
        #[command(flatten)]
        options: O,
    }

    #[test]
    fn order_alternates() {
        assert_eq!([0, 1, 2, 3].map(order), [[0, 1], [1, 0], [0, 1], [1, 0]]);
    }

    #[test]
    fn options_become_flags_again() {
        let given = ["test", "--every", "2500us", "--workers", "7", "--folder", "/disk", "--rounds", "9"];
        let load = Program::<Load>::parse_from(given).options;
        let flags = arguments(&load).unwrap();
        let again = Program::<Load>::parse_from([OsString::from("test")].into_iter().chain(flags)).options;
        assert_eq!(serde_json::to_value(&load).unwrap(), serde_json::to_value(&again).unwrap());
        assert_eq!(again.common().rounds, Some(1));
        assert_eq!(again.common().folder.as_deref(), Some(Path::new("/disk")));
    }

    #[test]
    fn rate_becomes_an_interval() {
        let load = |rate| {
            Program::<Load>::parse_from(["test".to_owned(), format!("--rate={rate}")]).options.with_interval()
        };
        let flags = arguments(&load("4000").unwrap()).unwrap();
        assert!(flags.windows(2).any(|pair| pair == ["--every", "250us"]), "{flags:?}");
        assert!(load("0").is_err() && load("-1").is_err() && load("1e20").is_err());
    }

    #[test]
    fn flags_of_dispatch_exist_in_older_builds() {
        let dispatch = Program::<Dispatch>::parse_from(["test"]).options;
        let flags = arguments(&dispatch).unwrap();
        let names: Vec<_> = flags.iter().step_by(2).collect();
        assert_eq!(names, ["--rounds", "--clients", "--seconds", "--slots", "--workers"]);
        let random = Program::<Dispatch>::parse_from(["test", "--ids", "random"]).options;
        let flags = arguments(&random).unwrap();
        assert!(flags.windows(2).any(|pair| pair == ["--ids", "random"]), "{flags:?}");
    }

    #[test]
    fn ratios_are_paired_and_older_reports_read() {
        let new = |rate: f64| {
            json!({"benchmark": "dispatch", "optimized": true, "rounds": [
                {"completed_per_second": rate, "creation": {"p50_ms": 1.0, "p999_ms": 2.0}}]})
        };
        // As printed by commit dc61eb4.
        let old = |rate: f64| {
            json!({"clients": 64, "workers": 4, "slots": 64, "processors": 2, "optimised": true, "rounds": [
                {"fsync": {"p50_ms": 0.2, "p99_ms": 0.4, "count": 200}, "raw_tasks_per_second": 9000.0,
                 "completed_per_second": rate, "created_per_second": rate, "ratio": 0.5,
                 "creation": {"p50_ms": 2.0, "p99_ms": 9.0, "count": 50},
                 "dispatch_idle": {"p50_ms": 1.0, "p99_ms": 2.0, "count": 300}}], "idle": null})
        };
        let reports = [
            [new(100.0), old(200.0)],
            [new(300.0), old(300.0)],
            [new(900.0), old(600.0)],
            [Value::Null, old(1.0)],
        ];
        let metrics = [
            Metric::new("completed", "/s", "/completed_per_second"),
            Metric::new("p99.9", "ms", "/creation/p999_ms"),
            Metric::new("p50", "ms", "/creation/p50_ms"),
        ];
        let compared = compare(&metrics, &reports);
        let rows = table(&compared).rows;
        assert_eq!(
            rows,
            [
                ["completed", "300", "300", "0.750", "1.000", "1.250", "/s"],
                ["p50", "1.00", "2.00", "0.500", "0.500", "0.500", "ms"],
            ]
        );
    }
}
