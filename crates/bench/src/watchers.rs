//! `rota bench watchers`: throughput of a closed loop with streams of everything, compared with none.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use rota_client::{Client, Options as ClientOptions, lazy_channel};
use rota_proto::framing;
use rota_proto::v1::{TaskState, WatchTasksRequest};
use rota_telemetry::{OnExit, spawn};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::codegen::{Body as _, Service as _, http};

use crate::control_plane::{ControlPlane, processor_time};
use crate::dispatch::{Throughput, closed_loop};
use crate::metrics::Metric;
use crate::plane::{NAMESPACE, Workers};
use crate::report::Latency;
use crate::scenario::{Common, RoundContext, Scenario};

const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a watcher to receive everything after the end of the load.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(20);

/// Measure task throughput with watchers of all tasks, compared with none
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench watchers
  rota bench watchers --watchers 1000 --rounds 5 -o json

Each round measures the closed loop of `rota bench dispatch` once without and once with watchers, in alternating order. A watcher \
is a stream of all tasks of the namespace (WatchTasks) over its own connection, as the client library opens it. One of them decodes \
what it receives, to count what reaches a watcher; the others discard it, since they would run elsewhere. The control plane is a process of its own.")]
pub(crate) struct Watchers {
    /// Number of watchers, at least 2, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..))]
    watchers: u16,
    /// Number of clients that create tasks, each waiting for the commit
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    clients: usize,
    /// Number of workers, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    workers: usize,
    /// Number of concurrent attempts per worker
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    slots: usize,
    /// Duration of each measurement, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

/// Values of one round.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    fsync: Latency,
    without: Measured,
    with: Measured,
    /// Throughput with watchers, divided by that without.
    ratio: f64,
}

/// Values of a closed loop.
#[derive(Debug, Serialize)]
struct Measured {
    #[serde(flatten)]
    load: Throughput,
    /// Share of one core that the control plane used.
    core_share: f64,
    /// Share of one core that clients, workers and watchers used.
    own_core_share: f64,
    /// Memory of the control plane at the end.
    resident_bytes: u64,
    received: Option<Received>,
}

/// What watchers received.
#[derive(Debug, Serialize)]
struct Received {
    /// Bytes per watcher, compressed: smallest and largest.
    bytes: [u64; 2],
    /// Share of the completed tasks that the decoding watcher saw.
    seen: f64,
    /// How often the decoding watcher had to list the tasks again.
    resyncs: u64,
    /// Time from the end of the load until it had seen all of them, or gave up.
    lag_seconds: f64,
}

impl Scenario for Watchers {
    const NAME: &'static str = "watchers";
    const METRICS: &'static [Metric] = &[
        Metric::new("with / without watchers", "", "/ratio"),
        Metric::new("completed tasks, with", "/s", "/with/completed_per_second"),
        Metric::new("completed tasks, without", "/s", "/without/completed_per_second"),
        Metric::new("creation p99, with", "ms", "/with/creation/p99_ms"),
        Metric::new("creation p99, without", "ms", "/without/creation/p99_ms"),
        Metric::new("control plane, with", "% of a core", "/with/core_share").scaled(100.0),
        Metric::new("control plane, without", "% of a core", "/without/core_share").scaled(100.0),
        Metric::new("clients, workers, watchers", "% of a core", "/with/own_core_share").scaled(100.0),
        Metric::new("clients, workers", "% of a core", "/without/own_core_share").scaled(100.0),
        Metric::new("memory, with", "MB", "/with/resident_bytes").scaled(1e-6),
        Metric::new("memory, without", "MB", "/without/resident_bytes").scaled(1e-6),
        Metric::new("received per watcher, least", "MB", "/with/received/bytes/0").scaled(1e-6),
        Metric::new("received per watcher, most", "MB", "/with/received/bytes/1").scaled(1e-6),
        Metric::new("tasks seen by a watcher", "%", "/with/received/seen").scaled(100.0),
        Metric::new("resyncs of a watcher", "", "/with/received/resyncs"),
        Metric::new("lag of a watcher at the end", "s", "/with/received/lag_seconds"),
        Metric::new("fsync p50", "ms", "/fsync/p50_ms"),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let fsync = round.fsync().await?;
        let (without, with);
        if round.number % 2 == 1 {
            without = self.measure(round, 0).await?;
            with = self.measure(round, self.watchers.into()).await?;
        } else {
            with = self.measure(round, self.watchers.into()).await?;
            without = self.measure(round, 0).await?;
        }
        let ratio = with.load.completed_per_second / without.load.completed_per_second;
        Ok(Round { fsync, without, with, ratio })
    }
}

impl Watchers {
    async fn measure(&self, round: &RoundContext<'_>, watchers: usize) -> Result<Measured> {
        round.progress(&format!("{watchers} watchers"));
        let folder = round.subfolder(&format!("watchers-{watchers}"))?;
        let plane = ControlPlane::start(&folder, false).await?;
        let options = plane.client_options();
        let workers = Workers::start(&options, &folder, self.workers, self.slots).await?;
        let mut discarding = Vec::new();
        for _ in 1..watchers {
            discarding.push(Discarding::open(&options).await?);
        }
        let decoding = if watchers > 0 { Some(Decoding::open(&options).await?) } else { None };
        let (before, own, start) = (plane.usage()?, processor_time()?, Instant::now());
        let span = Duration::from_secs(self.seconds);
        let load = closed_loop(&workers, self.clients, span, None).await?;
        let span = start.elapsed().as_secs_f64();
        let (usage, own) = (plane.usage()?, processor_time()? - own);
        let received = match decoding {
            None => None,
            Some(decoding) => {
                let (seen, lag) = decoding.catch_up(load.tasks).await;
                let bytes = || discarding.iter().map(|one| one.bytes.load(Ordering::Relaxed));
                #[expect(clippy::cast_precision_loss, reason = "counts are small")]
                let seen = seen as f64 / load.tasks as f64;
                Some(Received {
                    bytes: [bytes().min().unwrap_or_default(), bytes().max().unwrap_or_default()],
                    seen,
                    resyncs: decoding.resyncs.load(Ordering::Relaxed),
                    lag_seconds: lag.as_secs_f64(),
                })
            }
        };
        drop(discarding);
        workers.stop().await;
        plane.stop().await?;
        Ok(Measured {
            load,
            core_share: (usage.processor_seconds - before.processor_seconds) / span,
            own_core_share: own / span,
            resident_bytes: usage.resident_bytes,
            received,
        })
    }
}

/// Returns the encoded request of a watcher, with the prefix that gRPC gives each message.
fn request() -> Vec<u8> {
    let parent = rota_proto::names::namespace(NAMESPACE);
    framing::encode(&WatchTasksRequest { parent, batched: true, ..Default::default() })
}

/// Watcher that asks for what the client library asks for, and counts its bytes as they come over the connection.
struct Discarding {
    bytes: Arc<AtomicU64>,
    reader: tokio::task::JoinHandle<()>,
}

impl Discarding {
    async fn open(options: &ClientOptions) -> Result<Self> {
        let mut channel = lazy_channel(options)?;
        let request = http::Request::post("/rota.v1.TaskService/WatchTasks")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-accept-encoding", "gzip")
            .body(Body::new(axum::body::Body::from(request())))?;
        let call = async {
            poll_fn(|context| channel.poll_ready(context)).await?;
            channel.call(request).await
        };
        let response = timeout(OPEN_TIMEOUT, call).await.context("a watcher did not connect in time")??;
        let mut body = response.into_body();
        let bytes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes);
        let reader = spawn("bench-watcher", OnExit::Done, async move {
            while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                counter.fetch_add(size, Ordering::Relaxed);
            }
        });
        Ok(Self { bytes, reader })
    }
}

impl Drop for Discarding {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Watcher that decodes what it receives, with the client library.
struct Decoding {
    seen: watch::Receiver<u64>,
    resyncs: Arc<AtomicU64>,
    reader: tokio::task::JoinHandle<()>,
}

impl Decoding {
    async fn open(options: &ClientOptions) -> Result<Self> {
        let parent = rota_proto::names::namespace(NAMESPACE);
        let mut stream = Client::new(options.clone())?.watch_tasks(parent, "", false);
        let first =
            timeout(OPEN_TIMEOUT, stream.next()).await.context("a watcher did not connect in time")?;
        first.context("a watch has ended")??;
        let (sender, seen) = watch::channel(0);
        let resyncs = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&resyncs);
        let reader = spawn("bench-watcher", OnExit::Done, async move {
            let mut completed = HashSet::new();
            while let Some(Ok(response)) = stream.next().await {
                count.fetch_add(u64::from(response.resync), Ordering::Relaxed);
                let Some(task) = response.task else { continue };
                if task.status.as_ref().is_some_and(|status| status.state() == TaskState::Succeeded)
                    && completed.insert(task.uid)
                {
                    sender.send_modify(|seen| *seen += 1);
                }
            }
        });
        Ok(Self { seen, resyncs, reader })
    }

    /// Waits until it has seen a number of completed tasks, for a limited time. Returns how many it saw, and when.
    async fn catch_up(&self, tasks: u64) -> (u64, Duration) {
        let start = Instant::now();
        let mut seen = self.seen.clone();
        let _ = timeout(CATCH_UP_TIMEOUT, seen.wait_for(|seen| *seen >= tasks)).await;
        let lag = start.elapsed();
        (*self.seen.borrow(), lag)
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
