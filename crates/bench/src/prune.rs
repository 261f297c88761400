//! `rota bench prune`: a long log on PostgreSQL, of which most is removed, vacuumed and written again. Shows whether its tables stay
//! as large as they were, and what that costs the commits meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use rota_core::Timestamp;
use rota_store::{Command, Reply, Store};
use rota_telemetry::{OnExit, spawn};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::database::connect;
use crate::metrics::Metric;
use crate::plane::open_at;
use crate::raw::{Callers, Records};
use crate::report::Latency;
use crate::scenario::{Common, RoundContext, Scenario};

/// Records in one transaction, as a control plane removes them.
const MAX_PRUNED: usize = 200;
/// Pause between looks at the statistics.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const SIZE: &str = "SELECT pg_total_relation_size('rota.events')::int8,
        (SELECT sum(pg_total_relation_size(relid))::int8 FROM pg_stat_user_tables WHERE schemaname = 'rota')";
const VACUUMS: &str = "SELECT autovacuum_count FROM pg_stat_user_tables
    WHERE schemaname = 'rota' AND relname = 'events'";
/// Whether autovacuum has run since, runs no longer, and has nothing to do by the settings of the server.
const VACUUMED: &str = "SELECT autovacuum_count > $1
        AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 'rota.events'::regclass)
        AND n_dead_tup <= current_setting('autovacuum_vacuum_threshold')::float8
            + current_setting('autovacuum_vacuum_scale_factor')::float8
                * (SELECT reltuples FROM pg_class WHERE oid = 'rota.events'::regclass)
    FROM pg_stat_user_tables WHERE schemaname = 'rota' AND relname = 'events'";

/// Measure a long log on PostgreSQL while most of it is removed, and whether its space is used again
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench prune --store postgres://me@localhost/empty
  rota bench prune --store postgres://me@localhost/empty --tasks 70000 --seconds 5

Fills an empty database with tasks that have ended, each with three rows in the log; removes the oldest nine tenths, as the \
retention does; waits for autovacuum; then writes as many again. A few callers create tasks meanwhile: the latency of their \
commits is measured before, during the removal and during the vacuum. The size of the log for each task that is there, after the last \
step compared with that after the first, shows whether the removed space was used again.")]
pub(crate) struct Prune {
    /// PostgreSQL database, empty before: `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    store: String,
    /// Number of tasks, at least 1000
    #[arg(long, value_name = "COUNT", default_value_t = 700_000, value_parser = clap::value_parser!(u64).range(1000..))]
    tasks: u64,
    /// Number of concurrent callers that fill the log
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    fillers: usize,
    /// Number of concurrent callers whose commits are measured
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    clients: usize,
    /// Duration of the measurement before the removal, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
    /// Longest wait for autovacuum, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    vacuum_seconds: u64,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

#[derive(Debug, Serialize)]
pub(crate) struct Round {
    fsync: Latency,
    filled: Size,
    /// After the removal and the vacuum.
    pruned: Size,
    filled_again: Size,
    /// Bytes of the log for each task at the end, compared with those of the filled one: what is measured creates tasks as well.
    growth: f64,
    removed: u64,
    removed_per_second: f64,
    /// From the end of the removal until autovacuum has nothing to do; `None` if it did not come to that in time.
    vacuum_seconds: Option<f64>,
    /// Latency of creations before, during the removal, and during the vacuum.
    before: Latency,
    removing: Latency,
    vacuuming: Latency,
    /// Medians, compared with that before.
    removing_ratio: f64,
    vacuuming_ratio: f64,
}

/// Size of the log, with its indexes, and of all tables.
#[derive(Debug, Serialize)]
struct Size {
    tasks: u64,
    log_bytes: i64,
    total_bytes: i64,
}

impl Size {
    /// Returns the bytes of the log for each task that is there.
    fn log_of_a_task(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "bytes of a database fit")]
        let bytes = self.log_bytes as f64 / self.tasks as f64;
        bytes
    }
}

impl Scenario for Prune {
    const NAME: &'static str = "prune";
    const ROUNDS: u32 = 1;
    const METRICS: &'static [Metric] = &[
        Metric::new("creation p50, before", "ms", "/before/p50_ms"),
        Metric::new("creation p50, removing", "ms", "/removing/p50_ms"),
        Metric::new("creation p50, vacuuming", "ms", "/vacuuming/p50_ms"),
        Metric::new("creation p50, removing / before", "", "/removing_ratio"),
        Metric::new("creation p50, vacuuming / before", "", "/vacuuming_ratio"),
        Metric::new("creation p99, before", "ms", "/before/p99_ms"),
        Metric::new("creation p99, removing", "ms", "/removing/p99_ms"),
        Metric::new("creation p99, vacuuming", "ms", "/vacuuming/p99_ms"),
        Metric::new("removed", "tasks/s", "/removed_per_second"),
        Metric::new("vacuum", "s", "/vacuum_seconds"),
        Metric::new("tasks, filled", "", "/filled/tasks"),
        Metric::new("tasks, filled again", "", "/filled_again/tasks"),
        Metric::new("log, filled", "MB", "/filled/log_bytes").scaled(1e-6),
        Metric::new("log, removed", "MB", "/pruned/log_bytes").scaled(1e-6),
        Metric::new("log, filled again", "MB", "/filled_again/log_bytes").scaled(1e-6),
        Metric::new("log of a task, filled again / filled", "", "/growth"),
        Metric::new("all tables, filled", "MB", "/filled/total_bytes").scaled(1e-6),
        Metric::new("all tables, filled again", "MB", "/filled_again/total_bytes").scaled(1e-6),
        Metric::new("fsync p50", "ms", "/fsync/p50_ms"),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let fsync = round.fsync().await?;
        let store = open_at(Some(&self.store), round.folder).await?;
        let callers = Callers::start(Arc::clone(&store), Records::Least).await?;
        let database = connect(&self.store).await?;
        let old_tasks = self.tasks / 10 * 9;
        round.progress(&format!("creating {} tasks", self.tasks));
        let mut tasks = self.fill(&callers, old_tasks).await?;
        let old = Timestamp(rota_telemetry::clock::unix_micros());
        tasks += self.fill(&callers, self.tasks - old_tasks).await?;
        let filled = size(&database, tasks).await?;

        round.progress("commits alone");
        let (began, span) = (Instant::now(), Duration::from_secs(self.seconds));
        let (count, before) = callers.run(self.clients, move || began.elapsed() >= span).await?;
        tasks += count;

        round.progress("removing nine tenths");
        let vacuums: i64 = database.query_one(VACUUMS, &[]).await?.try_get(0)?;
        let (done, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let pruning = spawn("bench-prune", OnExit::Done, remove(Arc::clone(&store), old, Arc::clone(&done)));
        let (count, removing) = callers.run(self.clients, raised(Arc::clone(&done))).await?;
        let (removed, seconds) = (pruning.await??, began.elapsed().as_secs_f64());
        tasks = (tasks + count).saturating_sub(removed);
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let removed_per_second = removed as f64 / seconds;

        round.progress("waiting for autovacuum");
        let (done, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let limit = Duration::from_secs(self.vacuum_seconds);
        let waiting = async {
            let vacuumed = vacuumed(&database, vacuums, limit).await;
            done.store(true, Ordering::Release);
            vacuumed
        };
        let load = callers.run(self.clients, raised(Arc::clone(&done)));
        let (vacuumed, load) = tokio::join!(waiting, load);
        let vacuum_seconds = vacuumed?.then(|| began.elapsed().as_secs_f64());
        let (count, vacuuming) = load?;
        tasks += count;
        let pruned = size(&database, tasks).await?;

        round.progress("filling it again");
        tasks += self.fill(&callers, old_tasks).await?;
        let filled_again = size(&database, tasks).await?;
        callers.close().await;
        let against_before = |latency: &Latency| latency.millis(0.5) / before.millis(0.5);
        Ok(Round {
            fsync,
            growth: filled_again.log_of_a_task() / filled.log_of_a_task(),
            filled,
            pruned,
            filled_again,
            removed,
            removed_per_second,
            vacuum_seconds,
            removing_ratio: against_before(&removing),
            vacuuming_ratio: against_before(&vacuuming),
            before,
            removing,
            vacuuming,
        })
    }
}

impl Prune {
    /// Creates and ends so many tasks, and returns how many.
    async fn fill(&self, callers: &Callers, tasks: u64) -> Result<u64> {
        let begun = Arc::new(AtomicU64::new(0));
        Ok(callers.run(self.fillers, move || begun.fetch_add(1, Ordering::Relaxed) >= tasks).await?.0)
    }
}

/// Returns whether a flag is raised, as a condition of callers.
fn raised(flag: Arc<AtomicBool>) -> impl Fn() -> bool + Clone + Send + 'static {
    move || flag.load(Ordering::Acquire)
}

/// Removes the tasks that ended before a time, as a control plane does, and raises the flag, also after a failure. Returns their
/// number.
async fn remove(store: Arc<dyn Store>, old: Timestamp, done: Arc<AtomicBool>) -> Result<u64> {
    let prune = rota_store::Prune { ended_before: Some(old), left_before: Timestamp(0), limit: MAX_PRUNED };
    let removed = async {
        let mut removed = 0;
        loop {
            let replies = store.apply(vec![Command::Prune(prune)]).await?;
            let Some(Ok(Reply::Pruned { count, more })) = replies.into_iter().next() else {
                bail!("not removed");
            };
            removed += u64::try_from(count)?;
            if !more {
                return anyhow::Ok(removed);
            }
        }
    };
    let removed = removed.await;
    done.store(true, Ordering::Release);
    removed
}

/// Waits until autovacuum has nothing to do. Returns whether it came to that in time.
async fn vacuumed(database: &Client, vacuums: i64, limit: Duration) -> Result<bool> {
    let began = Instant::now();
    while began.elapsed() < limit {
        let vacuumed: bool = database.query_one(VACUUMED, &[&vacuums]).await?.try_get(0)?;
        if vacuumed {
            return Ok(true);
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(false)
}

async fn size(database: &Client, tasks: u64) -> Result<Size> {
    let row = database.query_one(SIZE, &[]).await?;
    Ok(Size { tasks, log_bytes: row.try_get(0)?, total_bytes: row.try_get(1)? })
}
