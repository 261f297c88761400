//! Cost of tracing: the same work with and without trace export in turns, each in a process of its own whose processor
//! time is measured. That process runs everything: the control plane on the in-memory store, clients, workers.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use rota_core::Timestamp;
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::SingleWriterStore;
use rota_telemetry::{OnExit, export, otlp, spawn};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::control_plane::processor_time;
use crate::dispatch::settled;
use crate::metrics::{median, quantile};
use crate::plane::{Plane, Workers, task};

/// Number of tasks per measurement.
const TASKS: u64 = 10_000;
/// Number of clients that create them, each waiting for the commit.
const CLIENTS: usize = 16;
/// Argument of a process that runs one measurement.
pub const SINGLE_RUN_ARG: &str = "alone";

/// Options of a comparison.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of pairs of measurements.
    pub pairs: usize,
    /// Share of traces that is sampled.
    pub share: f64,
    /// Program to run for each measurement; with [`SINGLE_RUN_ARG`] it prints the value of [`alone`].
    pub program: PathBuf,
}

/// Processor time per task, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Median without tracing.
    pub off: f64,
    /// Median with tracing.
    pub on: f64,
    /// Relative increase per pair: lower quartile, median, upper quartile.
    pub more: [f64; 3],
    /// Number of pairs.
    pub pairs: usize,
    /// Number of requests that the collector received.
    pub requests: u64,
    /// Bytes of these requests.
    pub bytes: u64,
    /// Whether the program was built with optimizations.
    pub optimized: bool,
}

/// Runs all pairs, and calls `progress` after each.
pub async fn measure(options: &Options, progress: impl Fn(&str)) -> Result<Cost> {
    let (requests, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let endpoint = sink(Arc::clone(&requests), Arc::clone(&bytes)).await?;
    let (mut offs, mut ons, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        // Alternates the order, since the second run meets another state of the machine.
        let (off, on) = if pair % 2 == 0 {
            let off = child(options, None).await?;
            (off, child(options, Some(&endpoint)).await?)
        } else {
            let on = child(options, Some(&endpoint)).await?;
            (child(options, None).await?, on)
        };
        progress(&format!("pair {} of {}: {off:.1} µs without, {on:.1} µs with", pair + 1, options.pairs));
        offs.push(off);
        ons.push(on);
        more.push(on / off - 1.0);
    }
    Ok(Cost {
        off: median(&offs),
        on: median(&ons),
        more: [0.25, 0.5, 0.75].map(|at| quantile(&more, at)),
        pairs: options.pairs,
        requests: requests.load(Ordering::Relaxed),
        bytes: bytes.load(Ordering::Relaxed),
        optimized: !cfg!(debug_assertions),
    })
}

/// Starts a collector that accepts and discards everything.
async fn sink(requests: Arc<AtomicU64>, bytes: Arc<AtomicU64>) -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let take = move |body: Bytes| {
        requests.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        async {}
    };
    let app = Router::new().fallback(take);
    spawn("bench-sink", OnExit::Done, async move { drop(axum::serve(listener, app).await) });
    Ok(endpoint)
}

/// Runs one measurement in a process with a minimal environment.
async fn child(options: &Options, collector: Option<&str>) -> Result<f64> {
    let mut command = tokio::process::Command::new(&options.program);
    command.arg(SINGLE_RUN_ARG).env_clear().stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    command.envs(rota_telemetry::env::var_os("TMPDIR").map(|folder| ("TMPDIR", folder)));
    if let Some(collector) = collector {
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", options.share.to_string())
            // Sixty times the default rate, so that a short measurement has some exports.
            .env("OTEL_METRIC_EXPORT_INTERVAL", "1000");
    }
    let ended = tokio::time::timeout(Duration::from_secs(600), command.output());
    let output = ended.await.context("a measurement timed out")??;
    anyhow::ensure!(output.status.success(), "a measurement failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("{text:?} is not a number"))
}

/// Runs one measurement in this process; returns the processor time per task in microseconds, final exports included.
pub async fn alone() -> Result<f64> {
    export::init(&otlp::Settings::from_env("rota-bench")?)?;
    let folder = tempfile::tempdir()?;
    let memory = InMemoryStore::default();
    let clock = Arc::new(|| Timestamp(rota_telemetry::clock::unix_micros()));
    let store = Arc::new(SingleWriterStore::start(Engine::new(memory.clone(), 7)?, memory, clock)?);
    let plane = Plane::start(store, folder.path(), 2, 64).await?;
    // Warms up: one-time work is not part of the cost of a task.
    work(&plane.workers, CLIENTS, TASKS / 10).await?;
    let before = processor_time()?;
    work(&plane.workers, CLIENTS, TASKS).await?;
    tokio::task::spawn_blocking(|| export::flush(export::FLUSH_TIMEOUT)).await?;
    let used = (processor_time()? - before) * 1e6;
    plane.stop().await;
    #[expect(clippy::cast_precision_loss, reason = "it is a small count")]
    let tasks = TASKS as f64;
    Ok(used / tasks)
}

/// Creates tasks and waits until they have finished.
pub(crate) async fn work(workers: &Workers, clients: usize, tasks: u64) -> Result<()> {
    let before = workers.attempts.done();
    let left = Arc::new(AtomicU64::new(tasks));
    let mut callers = Vec::new();
    for _ in 0..clients {
        let (client, left) = (workers.client.clone(), Arc::clone(&left));
        callers.push(spawn("bench-client", OnExit::Done, async move {
            let next = |left: u64| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
                client.create_task(task()).await?;
            }
            Ok::<_, rota_client::Error>(())
        }));
    }
    for caller in callers {
        caller.await??;
    }
    settled(&workers.client, &workers.attempts, before + tasks).await
}
