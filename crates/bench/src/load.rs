//! `rota bench load`: latency under an open loop, in which calls start on a schedule instead of after the previous answer.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rota_telemetry::{OnExit, spawn};
use serde::{Serialize, Serializer};
use tokio::time::{Instant, timeout_at};

use crate::control_plane::{ControlPlane, Usage};
use crate::metrics::Metric;
use crate::plane::{Workers, task};
use crate::report::Latency;
use crate::scenario::{Common, RoundContext, Scenario};
use crate::schedule::Schedule;

const DEFAULT_INTERVAL: Duration = Duration::from_millis(5);
/// Time before the measurement, under the same load.
const WARM_UP: Duration = Duration::from_secs(2);
/// Time for the last tasks after the end of the schedule.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);
/// Delay of a call behind its schedule from which it counts as missed.
const MISSED_AFTER: Duration = Duration::from_millis(1);

/// Measure dispatch latency while tasks arrive at a fixed rate
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench load
  rota bench load --workers 1000 --slots 1 --every 5ms --plot load.svg
  rota bench load --workers 4 --slots 64 --rate 4000 --against ./rota-before

Latency is measured from the intended start of each call, so that a control plane that stalls is charged for the \
calls that would have been made in the meantime (coordinated omission). Dispatch latency ends when the attempt \
starts, creation latency when the call returns. The control plane is a process of its own; clients and workers \
share this one.")]
pub(crate) struct Load {
    /// Interval between arrivals of tasks [default: 5ms]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "text")]
    every: Option<Duration>,
    /// Arrivals per second, instead of --every
    #[arg(long, value_name = "TASKS", conflicts_with = "every")]
    #[serde(skip)]
    rate: Option<f64>,
    /// Number of workers, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    workers: usize,
    /// Number of concurrent attempts per worker
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    slots: usize,
    /// Duration of the schedule, in seconds, after a warm-up of two
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

fn text<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(time.unwrap_or(DEFAULT_INTERVAL)))
}

#[derive(Debug, Serialize)]
pub(crate) struct Round {
    fsync: Latency,
    /// From the intended start of the call that creates a task to the start of its attempt.
    dispatch: Latency,
    /// From the intended start of the call to its answer.
    creation: Latency,
    /// From the intended start of the call to the actual one.
    lateness: Latency,
    offered_per_second: f64,
    /// Attempts started per second, until the last one.
    achieved_per_second: f64,
    /// Share of the calls that were started more than a millisecond late.
    missed: f64,
    /// Number of tasks whose creation failed, or which did not start within 30 seconds of the end.
    failed: u64,
    /// Share of one core that the control plane used.
    core_share: f64,
    #[serde(flatten)]
    usage: Usage,
}

struct Arrival {
    intended: Instant,
    called: Instant,
    created: Instant,
    dispatched: Instant,
}

impl Load {
    /// Replaces a rate by its interval, which is what the report has and another build receives.
    pub(crate) fn with_interval(self) -> Result<Self> {
        let every = match self.rate {
            None => self.every.unwrap_or(DEFAULT_INTERVAL),
            Some(rate) => Duration::try_from_secs_f64(1.0 / rate).context("--rate must be positive")?,
        };
        ensure!(!every.is_zero(), "the interval between arrivals must be positive");
        Ok(Self { every: Some(every), rate: None, ..self })
    }
}

impl Scenario for Load {
    const NAME: &'static str = "load";
    const METRICS: &'static [Metric] = &[
        Metric::new("dispatch p50", "ms", "/dispatch/p50_ms"),
        Metric::new("dispatch p99", "ms", "/dispatch/p99_ms"),
        Metric::new("dispatch p99.9", "ms", "/dispatch/p999_ms"),
        Metric::new("dispatch max", "ms", "/dispatch/max_ms"),
        Metric::new("creation p50", "ms", "/creation/p50_ms"),
        Metric::new("creation p99", "ms", "/creation/p99_ms"),
        Metric::new("creation p99.9", "ms", "/creation/p999_ms"),
        Metric::new("offered load", "tasks/s", "/offered_per_second"),
        Metric::new("achieved load", "tasks/s", "/achieved_per_second"),
        Metric::new("missed schedule", "%", "/missed").scaled(100.0),
        Metric::new("lateness of calls p99", "ms", "/lateness/p99_ms"),
        Metric::new("failed", "tasks", "/failed"),
        Metric::new("control plane", "% of a core", "/core_share").scaled(100.0),
        Metric::new("control plane, memory", "MB", "/resident_bytes").scaled(1e-6),
        Metric::new("fsync p50", "ms", "/fsync/p50_ms"),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let interval = self.every.unwrap_or(DEFAULT_INTERVAL);
        let fsync = round.fsync().await?;
        round.progress(&format!("connecting {} workers", self.workers));
        let folder = round.subfolder("plane")?;
        let plane = ControlPlane::start(&folder, false).await?;
        let workers = Workers::start(&plane.client_options(), &folder, self.workers, self.slots).await?;
        let rate = 1.0 / interval.as_secs_f64();
        round.progress(&format!("{rate:.0} tasks per second"));
        schedule(&workers, interval, WARM_UP).await?;
        let (before, start) = (plane.usage()?, Instant::now());
        let results = schedule(&workers, interval, Duration::from_secs(self.seconds)).await?;
        let (usage, span) = (plane.usage()?, start.elapsed());
        workers.stop().await;
        plane.stop().await?;
        let mut values = Round {
            fsync,
            dispatch: Latency::new(),
            creation: Latency::new(),
            lateness: Latency::new(),
            offered_per_second: rate,
            achieved_per_second: 0.0,
            missed: 0.0,
            failed: 0,
            core_share: (usage.processor_seconds - before.processor_seconds) / span.as_secs_f64(),
            usage,
        };
        values.add(&results)?;
        Ok(values)
    }
}

impl Round {
    fn add(&mut self, results: &[Result<Arrival>]) -> Result<()> {
        let mut missed = 0_u64;
        for result in results {
            let Ok(arrival) = result else {
                self.failed += 1;
                continue;
            };
            let lateness = arrival.called.duration_since(arrival.intended);
            missed += u64::from(lateness > MISSED_AFTER);
            self.lateness.record(lateness);
            self.creation.record(arrival.created.duration_since(arrival.intended));
            self.dispatch.record(arrival.dispatched.duration_since(arrival.intended));
        }
        let arrivals = || results.iter().flatten();
        let (first, last) = (
            arrivals().map(|arrival| arrival.intended).min(),
            arrivals().map(|arrival| arrival.dispatched).max(),
        );
        let (Some(first), Some(last)) = (first, last) else {
            let error = results.iter().find_map(|result| result.as_ref().err());
            bail!("no task was dispatched: {}", error.map_or_else(String::new, |error| format!("{error:#}")));
        };
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let (count, missed) = (self.dispatch.count() as f64, missed as f64);
        self.achieved_per_second = count / last.duration_since(first).as_secs_f64();
        self.missed = missed / count;
        Ok(())
    }
}

/// Creates tasks on a schedule, and returns the times of each.
async fn schedule(workers: &Workers, interval: Duration, span: Duration) -> Result<Vec<Result<Arrival>>> {
    let count = u64::try_from(span.as_nanos() / interval.as_nanos())?.max(1);
    let schedule = Schedule { start: Instant::now() + interval, interval, count };
    let mut arrivals = schedule.run();
    let mut tasks = Vec::new();
    while let Some(intended) = arrivals.recv().await {
        let mut service = workers.client.tasks();
        let mut request = task();
        request.task_id = uuid::Uuid::now_v7().to_string();
        let began = workers.attempts.expect(&request.task_id);
        tasks.push(spawn("bench-arrival", OnExit::Done, async move {
            let called = Instant::now();
            service.create_task(request).await?;
            let created = Instant::now();
            Ok(Arrival { intended, called, created, dispatched: began.await? })
        }));
    }
    let deadline = Instant::now() + FINISH_TIMEOUT;
    let mut results = Vec::new();
    for mut task in tasks {
        results.push(match timeout_at(deadline, &mut task).await {
            Ok(result) => result?,
            Err(_) => {
                task.abort();
                Err(anyhow::anyhow!("a task was not started in time"))
            }
        });
    }
    Ok(results)
}
