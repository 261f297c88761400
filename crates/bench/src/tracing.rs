//! What tracing costs: the same work with and without it, by turns, each in a process of its own whose processor time
//! is counted. Everything is in that process: the control plane on the store in memory, clients, workers.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rota_core::Timestamp;
use rota_store::embedded::Embedded;
use rota_store::engine::Engine;
use rota_store::memory::Memory;
use rota_telemetry::{OnExit, otlp, spawn};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::dispatch::settled;
use crate::plane::{Plane, task};

/// Tasks in each measurement.
const TASKS: u64 = 10_000;
/// Clients that hand them in, each waiting for its creation.
const CLIENTS: usize = 16;
/// The argument of a process that measures once.
pub const ALONE: &str = "alone";

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often both are measured.
    pub pairs: usize,
    /// The share of traces that is recorded.
    pub share: f64,
    /// The program to run for each: with [`ALONE`] as its argument it prints what [`alone`] gives.
    pub program: PathBuf,
}

/// Processor time for each task, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Without: the median.
    pub off: f64,
    /// With.
    pub on: f64,
    /// By how much of the time without it is more, pair by pair: the quarter, the median, three quarters.
    pub more: [f64; 3],
    /// Pairs.
    pub pairs: usize,
    /// Requests that the collector got, and their bytes.
    pub requests: u64,
    /// See there.
    pub bytes: u64,
    /// Whether the program was built with optimisations.
    pub optimised: bool,
}

/// Measures. `told` hears of each pair.
pub async fn measure(options: &Options, told: impl Fn(&str)) -> Result<Cost> {
    let (requests, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let endpoint = sink(Arc::clone(&requests), Arc::clone(&bytes)).await?;
    let (mut offs, mut ons, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        // Whatever comes second meets another machine: each does as often.
        let (off, on) = if pair % 2 == 0 {
            let off = child(options, None).await?;
            (off, child(options, Some(&endpoint)).await?)
        } else {
            let on = child(options, Some(&endpoint)).await?;
            (child(options, None).await?, on)
        };
        told(&format!("pair {} of {}: {off:.1} µs without, {on:.1} µs with", pair + 1, options.pairs));
        offs.push(off);
        ons.push(on);
        more.push(on / off - 1.0);
    }
    Ok(Cost {
        off: quantile(&mut offs, 0.5),
        on: quantile(&mut ons, 0.5),
        more: [0.25, 0.5, 0.75].map(|at| quantile(&mut more, at)),
        pairs: options.pairs,
        requests: requests.load(Ordering::Relaxed),
        bytes: bytes.load(Ordering::Relaxed),
        optimised: !cfg!(debug_assertions),
    })
}

fn quantile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "there are few values"
    )]
    let index = (values.len().saturating_sub(1) as f64 * at).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// A collector that takes everything and keeps nothing.
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

/// One measurement, in a process that has only what it needs in its environment.
async fn child(options: &Options, collector: Option<&str>) -> Result<f64> {
    let mut command = tokio::process::Command::new(&options.program);
    command.arg(ALONE).env_clear().stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    command.envs(rota_telemetry::env::var_os("TMPDIR").map(|folder| ("TMPDIR", folder)));
    if let Some(collector) = collector {
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", options.share.to_string())
            // Sixty times as often as usual, so that a short measurement has some.
            .env("OTEL_METRIC_EXPORT_INTERVAL", "1000");
    }
    let ended = tokio::time::timeout(Duration::from_secs(600), command.output());
    let output = ended.await.context("a measurement does not end")??;
    anyhow::ensure!(output.status.success(), "a measurement failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("{text:?} is no figure"))
}

/// One measurement in this process: processor time for each task, in microseconds, with what is sent at the end.
pub async fn alone() -> Result<f64> {
    otlp::init(&otlp::Settings::from_env("rota-bench")?)?;
    let folder = tempfile::tempdir()?;
    let twin = Memory::default();
    let clock = Arc::new(|| Timestamp(rota_telemetry::clock::unix_micros()));
    let store = Arc::new(Embedded::start(Engine::new(twin.clone(), 7)?, twin, clock)?);
    let plane = Plane::start(store, folder.path(), 2, 64).await?;
    // What happens once is not what a task costs.
    work(&plane, TASKS / 10).await?;
    let before = used()?;
    work(&plane, TASKS).await?;
    tokio::task::spawn_blocking(|| otlp::flush(otlp::FLUSH)).await?;
    let used = used()? - before;
    plane.stop().await;
    #[expect(clippy::cast_precision_loss, reason = "it is a small count")]
    let tasks = TASKS as f64;
    Ok(used / tasks)
}

/// Hands in so many tasks, and waits until they are done.
async fn work(plane: &Plane, tasks: u64) -> Result<()> {
    let before = plane.notes.done();
    let left = Arc::new(AtomicU64::new(tasks));
    let mut callers = Vec::new();
    for _ in 0..CLIENTS {
        let (client, left) = (plane.client.clone(), Arc::clone(&left));
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
    settled(plane, before + tasks).await
}

/// Processor time of this process so far, in microseconds.
fn used() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a measurement fit")]
    let micros = |time: TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}
