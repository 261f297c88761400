//! `rota bench snapshot`: commits on PostgreSQL while another transaction keeps an old snapshot, such as that of a backup, compared
//! with commits on a database without one, in turns.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use crate::database::connect;
use crate::metrics::{Metric, median};
use crate::plane::open_at;
use crate::raw::{Callers, Records};
use crate::report::Latency;
use crate::scenario::{Common, RoundContext, Scenario};

/// Measure commits on PostgreSQL under a snapshot that stays open, compared with none
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench snapshot --store postgres://me@localhost/one --baseline-store postgres://me@localhost/other
  rota bench snapshot --store postgres://me@localhost/one --baseline-store postgres://me@localhost/other --seconds 60

Both databases are empty before and have the same load, in short turns in the order A B B A. A `REPEATABLE READ` transaction stays \
open on the first one all the time, so that no version of a row there can be removed. Ratios are those of the medians within a \
pair of turns; `late` are the last quarter of the pairs.")]
pub(crate) struct Snapshot {
    /// PostgreSQL database with the snapshot: `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    store: String,
    /// PostgreSQL database without a snapshot, whose commits are compared
    #[arg(long, value_name = "URL")]
    baseline_store: String,
    /// Time for which the snapshot is open, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Duration of each turn, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    turn: u64,
    /// Number of concurrent callers of each database
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    clients: usize,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

#[derive(Debug, Serialize)]
pub(crate) struct Round {
    fsync: Latency,
    /// Latency of the commits that create tasks.
    snapshot: Latency,
    baseline: Latency,
    /// Ratio of the medians in each pair of turns.
    ratios: Vec<f64>,
    ratio: f64,
    late_ratio: f64,
    /// Tasks of the database with the snapshot.
    tasks: u64,
}

impl Scenario for Snapshot {
    const NAME: &'static str = "snapshot";
    const ROUNDS: u32 = 1;
    const METRICS: &'static [Metric] = &[
        Metric::new("commit p50, snapshot", "ms", "/snapshot/p50_ms"),
        Metric::new("commit p50, none", "ms", "/baseline/p50_ms"),
        Metric::new("commit p99, snapshot", "ms", "/snapshot/p99_ms"),
        Metric::new("commit p99, none", "ms", "/baseline/p99_ms"),
        Metric::new("commit p50, snapshot / none", "", "/ratio"),
        Metric::new("commit p50, snapshot / none, late", "", "/late_ratio"),
        Metric::new("tasks under the snapshot", "", "/tasks"),
        Metric::new("fsync p50", "ms", "/fsync/p50_ms"),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let fsync = round.fsync().await?;
        let mut sides = Vec::new();
        for url in [&self.store, &self.baseline_store] {
            sides.push(Callers::start(open_at(Some(url), round.folder).await?, Records::Least).await?);
        }
        let turn = Duration::from_secs(self.turn);
        let measure = async |side: &Callers| {
            let began = Instant::now();
            side.run(self.clients, move || began.elapsed() >= turn).await
        };
        // The first commits of a database are slower.
        for side in &sides {
            measure(side).await?;
        }
        let mut database = connect(&self.store).await?;
        let isolation = tokio_postgres::IsolationLevel::RepeatableRead;
        let snapshot = database.build_transaction().isolation_level(isolation).start().await?;
        // The first statement takes it.
        snapshot.query_one("SELECT count(*) FROM rota.commits", &[]).await?;
        let (began, span) = (Instant::now(), Duration::from_secs(self.seconds));
        let mut all = [Latency::new(), Latency::new()];
        let (mut ratios, mut tasks) = (Vec::new(), 0);
        while began.elapsed() < span {
            round.progress(&format!("snapshot of {} s", began.elapsed().as_secs()));
            let mut medians = [0.0; 2];
            let order = if ratios.len().is_multiple_of(2) { [0, 1] } else { [1, 0] };
            for side in order {
                let (count, latency) = measure(&sides[side]).await?;
                medians[side] = latency.millis(0.5);
                all[side].merge(&latency)?;
                tasks += if side == 0 { count } else { 0 };
            }
            ratios.push(medians[0] / medians[1]);
        }
        snapshot.rollback().await?;
        for side in sides {
            side.close().await;
        }
        let late = &ratios[ratios.len() - ratios.len().div_ceil(4)..];
        let [snapshot, baseline] = all;
        let (ratio, late_ratio) = (median(&ratios), median(late));
        Ok(Round { fsync, snapshot, baseline, ratio, late_ratio, ratios, tasks })
    }
}
