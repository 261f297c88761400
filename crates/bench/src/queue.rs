//! `rota bench queue`: dispatch from a deep queue, compared with a short one. Both control planes run at the same time and
//! are measured in turns.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use rota_client::Client;
use rota_proto::names::namespace;
use rota_proto::v1::SearchTasksRequest;
use rota_telemetry::{OnExit, spawn};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use crate::batches;
use crate::control_plane::{ControlPlane, Usage};
use crate::dispatch::idle_dispatch;
use crate::metrics::Metric;
use crate::plane::{AGENT, NAMESPACE, Workers, put_agent};
use crate::report::Latency;
use crate::runtime::{AttemptLog, Gated};
use crate::scenario::{Common, RoundContext, Scenario};

/// Agent without a queue, on the same control plane.
const FREE_AGENT: &str = "free";
/// Number of clients that fill a queue.
const FILLERS: usize = 4;
/// Largest batch that the API accepts.
const BATCH: u64 = 1000;
/// Measurements per turn of each control plane.
const TIMED_TASKS: usize = 150;
/// Turns: the deep queue is measured between and after the short one.
const TURNS: [usize; 4] = [0, 1, 1, 0];
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The search index has its own pace.
const INDEX_TIMEOUT: Duration = Duration::from_mins(30);
const INDEX_INTERVAL: Duration = Duration::from_secs(5);

/// Measure dispatch from a deep queue, compared with a short one
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench queue
  rota bench queue --tasks 100000 --folder . -o json
  rota bench queue --store postgres://me@localhost/deep --baseline-store postgres://me@localhost/short

The queue is filled in batches of 1000 tasks, then the control plane is restarted. `hand-over` is the time from the end of an \
attempt to the start of the next one from the queue, on one slot. `dispatch` is the time from the creation of a task of another \
agent, with a free worker, to the start of its attempt. Both queues are measured in turns, first while the search index takes in the \
tasks (`while indexing`), then once it has those of both queues (`indexed`). With --store, both databases are empty before, and \
`restart` is a takeover of a database that was given back.")]
pub(crate) struct Queue {
    /// Number of queued tasks in the deep queue
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    tasks: u64,
    /// Number of queued tasks to compare with, at least 1000
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1000..))]
    baseline: u64,
    /// PostgreSQL database of the deep queue, instead of a new file: `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL", requires = "baseline_store")]
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    /// PostgreSQL database of the short queue
    #[arg(long, value_name = "URL", requires = "store")]
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_store: Option<String>,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

#[derive(Debug, Serialize)]
pub(crate) struct Round {
    fsync: Latency,
    baseline: Depth,
    deep: Depth,
}

/// Values of a control plane with queued tasks.
#[derive(Debug, Serialize)]
struct Depth {
    tasks: u64,
    created_per_second: f64,
    /// Memory once the queue was filled.
    filled: Usage,
    /// Memory after the restart and all measurements.
    restarted: Option<Usage>,
    /// Size of the database file and its log; 0 in PostgreSQL.
    store_bytes: u64,
    /// Time from the start of the process with a filled store to the open listener.
    open_seconds: f64,
    /// Time from the end of the first turns of both queues until the search index had all tasks of this one, at most 5 s too long.
    index_seconds: f64,
    /// While the search index of the deep queue takes in the tasks.
    #[serde(flatten)]
    indexing: Latencies,
    /// Once the index has them.
    indexed: Latencies,
}

#[derive(Debug, Serialize)]
struct Latencies {
    /// From the end of an attempt to the start of the next one from the queue.
    hand_over: Latency,
    /// From the creation of a task of another agent to the start of its attempt.
    dispatch: Latency,
}

impl Latencies {
    fn new() -> Self {
        Self { hand_over: Latency::new(), dispatch: Latency::new() }
    }
}

impl Scenario for Queue {
    const NAME: &'static str = "queue";
    const ROUNDS: u32 = 1;
    const METRICS: &'static [Metric] = &[
        Metric::new("hand-over p50, while indexing", "ms", "/deep/hand_over/p50_ms"),
        Metric::new("hand-over p99, while indexing", "ms", "/deep/hand_over/p99_ms"),
        Metric::new("hand-over p50, short queue, while indexing", "ms", "/baseline/hand_over/p50_ms"),
        Metric::new("hand-over p99, short queue, while indexing", "ms", "/baseline/hand_over/p99_ms"),
        Metric::new("dispatch p50, while indexing", "ms", "/deep/dispatch/p50_ms"),
        Metric::new("dispatch p99, while indexing", "ms", "/deep/dispatch/p99_ms"),
        Metric::new("dispatch p50, short queue, while indexing", "ms", "/baseline/dispatch/p50_ms"),
        Metric::new("dispatch p99, short queue, while indexing", "ms", "/baseline/dispatch/p99_ms"),
        Metric::new("hand-over p50, indexed", "ms", "/deep/indexed/hand_over/p50_ms"),
        Metric::new("hand-over p50, short queue, indexed", "ms", "/baseline/indexed/hand_over/p50_ms"),
        Metric::new("dispatch p50, indexed", "ms", "/deep/indexed/dispatch/p50_ms"),
        Metric::new("dispatch p50, short queue, indexed", "ms", "/baseline/indexed/dispatch/p50_ms"),
        Metric::new("search index complete, after the first turns", "s", "/deep/index_seconds"),
        Metric::new("creations in batches", "tasks/s", "/deep/created_per_second"),
        Metric::new("memory, filled", "MB", "/deep/filled/resident_bytes").scaled(1e-6),
        Metric::new("memory, restarted", "MB", "/deep/restarted/resident_bytes").scaled(1e-6),
        Metric::new("memory without files, restarted", "MB", "/deep/restarted/anonymous_bytes").scaled(1e-6),
        Metric::new("restart: listening", "s", "/deep/open_seconds"),
        Metric::new("restart: listening, short queue", "s", "/baseline/open_seconds"),
        Metric::new("store", "MB", "/deep/store_bytes").scaled(1e-6),
        Metric::new("fsync p50", "ms", "/fsync/p50_ms"),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let fsync = round.fsync().await?;
        let mut sides = Vec::new();
        for (name, tasks, store) in
            [("baseline", self.baseline, &self.baseline_store), ("deep", self.tasks, &self.store)]
        {
            sides.push(Side::fill(round, round.subfolder(name)?, store.clone(), tasks).await?);
        }
        for is_indexed in [false, true] {
            if is_indexed {
                let begun = Instant::now();
                try_join_all(sides.iter_mut().map(|side| side.until_indexed(round, begun))).await?;
            }
            for (turn, side) in TURNS.into_iter().enumerate() {
                let (turn, turns, side) = (turn + 1, TURNS.len(), &mut sides[side]);
                let index = if is_indexed { ", indexed" } else { "" };
                round.progress(&format!("turn {turn} of {turns}: {} queued tasks{index}", side.values.tasks));
                side.measure(is_indexed).await?;
            }
        }
        let mut depths = Vec::new();
        for side in sides {
            depths.push(side.end().await?);
        }
        let [baseline, deep] = <[Depth; 2]>::try_from(depths).ok().context("there are two sides")?;
        Ok(Round { fsync, baseline, deep })
    }
}

/// Control plane with a filled queue, and its workers.
struct Side {
    plane: ControlPlane,
    queue: Workers,
    free: Workers,
    starts: mpsc::UnboundedReceiver<Instant>,
    permits: Arc<Semaphore>,
    values: Depth,
}

impl Side {
    /// Fills a queue, restarts the control plane, and connects a worker of each agent.
    async fn fill(
        round: &RoundContext<'_>,
        folder: PathBuf,
        store: Option<String>,
        tasks: u64,
    ) -> Result<Self> {
        let mut plane = ControlPlane::start_at(&folder, false, store).await?;
        let client = Client::new(plane.client_options())?;
        put_agent(&client, AGENT).await?;
        let created_per_second = fill(round, &client, tasks).await?;
        let filled = plane.usage()?;
        round.progress(&format!("restarting the control plane with {tasks} queued tasks"));
        let (_, opened) = plane.restart().await?;
        let options = plane.client_options();
        let (sender, mut starts) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(0));
        let gated = Arc::new(Gated { starts: sender, permits: Arc::clone(&permits) });
        let log = Arc::new(AttemptLog::default());
        let free = Workers::with_runtime(
            &options,
            &folder,
            FREE_AGENT,
            (1, 1),
            Arc::clone(&log),
            Arc::new(crate::runtime::Immediate(log)),
        );
        let free = free.await?;
        let queue = Workers::with_runtime(&options, &folder, AGENT, (1, 1), Arc::default(), gated).await?;
        timeout(START_TIMEOUT, starts.recv()).await.context("no queued task was started in time")?;
        let size = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |data| data.len());
        let values = Depth {
            tasks,
            created_per_second,
            filled,
            restarted: None,
            store_bytes: size("rota.sqlite") + size("rota.sqlite-wal"),
            open_seconds: opened.as_secs_f64(),
            index_seconds: 0.0,
            indexing: Latencies::new(),
            indexed: Latencies::new(),
        };
        Ok(Self { plane, queue, free, starts, permits, values })
    }

    /// Waits until the search index has what the store has now. The time counts from the begin that both queues share.
    async fn until_indexed(&mut self, round: &RoundContext<'_>, begun: Instant) -> Result<()> {
        let client = Client::new(self.plane.client_options())?;
        let tasks = self.values.tasks;
        let mut target = None;
        let indexed = async {
            loop {
                let request = SearchTasksRequest {
                    parent: namespace(NAMESPACE),
                    text: "indexed".to_owned(),
                    ..Default::default()
                };
                let found = client.search_tasks(request).await?;
                let target = *target.get_or_insert(found.revision);
                if found.indexed_revision >= target {
                    return anyhow::Ok(());
                }
                let known = found.indexed_revision;
                round.progress(&format!("search index of {tasks} tasks: {known} of {target} revisions"));
                sleep(INDEX_INTERVAL).await;
            }
        };
        timeout(INDEX_TIMEOUT, indexed).await.context("the search index was not complete in time")??;
        self.values.index_seconds = begun.elapsed().as_secs_f64();
        Ok(())
    }

    async fn measure(&mut self, is_indexed: bool) -> Result<()> {
        let values = if is_indexed { &mut self.values.indexed } else { &mut self.values.indexing };
        for _ in 0..TIMED_TASKS {
            let released = Instant::now();
            self.permits.add_permits(1);
            let next = timeout(START_TIMEOUT, self.starts.recv()).await;
            let next = next.context("no queued task was started in time")?.context("the worker has ended")?;
            values.hand_over.record(next.duration_since(released));
        }
        idle_dispatch(&self.free, FREE_AGENT, TIMED_TASKS, &mut values.dispatch).await
    }

    async fn end(mut self) -> Result<Depth> {
        self.values.restarted = Some(self.plane.usage()?);
        self.queue.stop().await;
        self.free.stop().await;
        self.plane.stop().await?;
        Ok(self.values)
    }
}

/// Creates tasks in batches and returns their number per second.
async fn fill(round: &RoundContext<'_>, client: &Client, tasks: u64) -> Result<f64> {
    let created = Arc::new(AtomicU64::new(0));
    let left = Arc::new(AtomicU64::new(tasks));
    let start = Instant::now();
    let mut callers = FuturesUnordered::new();
    for _ in 0..FILLERS {
        let (client, left, created) = (client.clone(), Arc::clone(&left), Arc::clone(&created));
        callers.push(spawn("bench-filler", OnExit::Done, async move {
            loop {
                let take = |left: u64| (left > 0).then(|| left.saturating_sub(BATCH));
                let Ok(before) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
                    return anyhow::Ok(());
                };
                let count = before.min(BATCH);
                batches::create(&client, count).await?;
                created.fetch_add(count, Ordering::Relaxed);
            }
        }));
    }
    let mut progress = tokio::time::interval(Duration::from_secs(5));
    while !callers.is_empty() {
        tokio::select! {
            Some(ended) = callers.next() => ended??,
            _ = progress.tick() => {
                round.progress(&format!("created {} of {tasks} tasks", created.load(Ordering::Relaxed)));
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let rate = tasks as f64 / seconds;
    Ok(rate)
}
