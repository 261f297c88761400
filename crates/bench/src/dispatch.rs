//! `rota bench dispatch`: disk, store and control plane in turn, the latter first idle and then under a closed loop.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use rota_client::Client;
use rota_proto::v1::{ListTasksRequest, TaskFilter, TaskState};
use rota_telemetry::{OnExit, spawn};
use serde::Serialize;
use tokio::time::Instant;

use crate::batches::Batches;
use crate::metrics::Metric;
use crate::plane::{NAMESPACE, Plane, Workers, open_at, task, task_of};
use crate::raw::{self, Records};
use crate::report::Latency;
use crate::runtime::AttemptLog;
use crate::scenario::{Common, RoundContext, Scenario};

/// Number of tasks whose dispatch latency is measured per round.
const TIMED_TASKS: usize = 300;
/// Limit of the time from a creation to the start of the attempt.
const DISPATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Measure task throughput and dispatch latency, with all components on this machine
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench dispatch
  rota bench dispatch --rounds 5 --folder . -o json
  rota bench dispatch --rounds 10 --against ./rota-before
  rota bench dispatch --store postgres://me@localhost/bench --ids random

Each round measures the disk, the store and the whole control plane in turn, so that all three see the same \
disk: the store with the least that a task can be, and with the records and calls that the control plane makes of its tasks. The control plane, its clients and its workers share this process. Each client waits for the commit \
of its creation before the next one. Last, one client creates 10,000 tasks in batches of 500.")]
pub(crate) struct Dispatch {
    /// Number of clients that create tasks, each waiting for the commit
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    clients: usize,
    /// Number of workers, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    workers: usize,
    /// Number of concurrent attempts per worker
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    slots: usize,
    /// Duration of each measurement of a rate, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// PostgreSQL database that the benchmark fills with tasks, instead of a new file: `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    /// Ids of the tasks under load [default: growing]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Ids>,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

/// Values of one round, measured one after the other on the same disk.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    /// Latency of a durable write of 4 KiB.
    fsync: Latency,
    /// Task lifecycles per second in the store alone, with as many concurrent callers as clients.
    raw_tasks_per_second: f64,
    /// The same with the records and calls that the control plane makes of its tasks.
    same_records_per_second: f64,
    /// Tasks completed per second over gRPC, while each client waits for the commit of its creation.
    completed_per_second: f64,
    /// Tasks created durably per second in the same time.
    created_per_second: f64,
    ratio: f64,
    /// Ratio to the store alone with the same records.
    same_records_ratio: f64,
    /// Latency of the call that creates a task, under this load.
    creation: Latency,
    /// Time from the call that creates a task to the start of its attempt, on an idle system.
    dispatch_idle: Latency,
    batches: Batches,
}

impl Scenario for Dispatch {
    const NAME: &'static str = "dispatch";
    const METRICS: &'static [Metric] = &[
        Metric::new("completed tasks", "/s", "/completed_per_second"),
        Metric::new("durable creations", "/s", "/created_per_second"),
        Metric::new("store alone", "tasks/s", "/raw_tasks_per_second"),
        Metric::new("completed / store alone", "", "/ratio"),
        Metric::new("store alone, same records", "tasks/s", "/same_records_per_second"),
        Metric::new("completed / store alone, same records", "", "/same_records_ratio"),
        Metric::new("creation p50, under load", "ms", "/creation/p50_ms"),
        Metric::new("creation p99, under load", "ms", "/creation/p99_ms"),
        Metric::new("completed tasks, in batches", "/s", "/batches/completed_per_second"),
        Metric::new("durable creations, in batches", "/s", "/batches/created_per_second"),
        Metric::new("dispatch p50, idle", "ms", "/dispatch_idle/p50_ms"),
        Metric::new("dispatch p99, idle", "ms", "/dispatch_idle/p99_ms"),
        Metric::new("fsync p50", "ms", "/fsync/p50_ms"),
        Metric::new("fsync p99", "ms", "/fsync/p99_ms"),
        Metric::difference("dispatch p50 - fsync p50", "ms", "/dispatch_idle/p50_ms", "/fsync/p50_ms"),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let span = Duration::from_secs(self.seconds);
        let fsync = round.fsync().await?;
        round.progress("the store alone");
        let alone = async |folder: &str, records| {
            let store = open_at(self.store.as_deref(), &round.subfolder(folder)?).await?;
            raw::lives(store, self.clients, span, records).await
        };
        let raw = alone("raw", Records::Least).await?;
        let same_records = alone("same-records", Records::Whole { workers: self.workers }).await?;
        round.progress("the control plane");
        let folder = round.subfolder("plane")?;
        let store = open_at(self.store.as_deref(), &folder).await?;
        let plane = Plane::start(store, &folder, self.workers, self.slots).await?;
        let mut dispatch_idle = Latency::new();
        idle_dispatch(&plane.workers, crate::plane::AGENT, TIMED_TASKS, &mut dispatch_idle).await?;
        let load = closed_loop(&plane.workers, self.clients, span, self.ids).await?;
        let batches = Batches::measure(&plane.workers).await?;
        plane.stop().await;
        Ok(Round {
            fsync,
            raw_tasks_per_second: raw,
            same_records_per_second: same_records,
            completed_per_second: load.completed_per_second,
            created_per_second: load.created_per_second,
            ratio: load.completed_per_second / raw,
            same_records_ratio: load.completed_per_second / same_records,
            creation: load.creation,
            dispatch_idle,
            batches,
        })
    }
}

/// Measures the time from the call that creates a task to the start of its attempt, one task at a time.
pub(crate) async fn idle_dispatch(
    workers: &Workers,
    agent: &str,
    tasks: usize,
    latency: &mut Latency,
) -> Result<()> {
    let mut service = workers.client.tasks();
    for _ in 0..tasks {
        let mut request = task_of(agent);
        request.task_id = uuid::Uuid::now_v7().to_string();
        let began = workers.attempts.expect(&request.task_id);
        let start = Instant::now();
        let task = service.create_task(request).await?.into_inner();
        let at = tokio::time::timeout(DISPATCH_TIMEOUT, began)
            .await
            .context("a task was not started in time")??;
        latency.record(at.duration_since(start));
        // Nothing of this task is left to commit when the next one is created: the system is idle.
        let ended = async {
            let mut log = workers.client.watch_task(task.name, 0);
            while log.next().await.transpose()?.is_some() {}
            anyhow::Ok(())
        };
        tokio::time::timeout(DISPATCH_TIMEOUT, ended).await.context("a task did not end in time")??;
    }
    Ok(())
}

/// Values of a closed loop.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Throughput {
    pub(crate) tasks: u64,
    /// Tasks completed per second, until the last one.
    pub(crate) completed_per_second: f64,
    /// Tasks created durably per second, until the last creation.
    pub(crate) created_per_second: f64,
    /// Latency of the call that creates a task.
    pub(crate) creation: Latency,
}

/// Ids of the tasks of a closed loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ids {
    /// Those that the control plane gives, which grow with time
    Growing,
    /// Random ones of the clients, such as the operator has of resources
    Random,
}

/// Measures concurrent clients, each creating one task after the other.
pub(crate) async fn closed_loop(
    workers: &Workers,
    clients: usize,
    span: Duration,
    ids: Option<Ids>,
) -> Result<Throughput> {
    let before = workers.attempts.done();
    let start = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..clients {
        let mut service = workers.client.tasks();
        callers.push(spawn("bench-client", OnExit::Done, async move {
            let mut times = Vec::new();
            while start.elapsed() < span {
                let mut request = task();
                if ids == Some(Ids::Random) {
                    request.task_id = uuid::Uuid::new_v4().to_string();
                }
                let at = Instant::now();
                service.create_task(request).await?;
                times.push(at.elapsed());
            }
            Ok::<_, tonic::Status>(times)
        }));
    }
    let mut creation = Latency::new();
    for caller in callers {
        caller.await??.into_iter().for_each(|time| creation.record(time));
    }
    let creating = start.elapsed().as_secs_f64();
    let tasks = creation.count();
    settled(&workers.client, &workers.attempts, before + tasks).await?;
    let until_done = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let count = tasks as f64;
    let (completed_per_second, created_per_second) = (count / until_done, count / creating);
    Ok(Throughput { tasks, completed_per_second, created_per_second, creation })
}

/// Waits until a number of attempts have finished and their results are durable.
pub(crate) async fn settled(client: &Client, attempts: &AttemptLog, done: u64) -> Result<()> {
    let wait = async {
        attempts.reach(done).await?;
        // All attempts have run; the results of the last ones may still be in flight.
        let states = [TaskState::Queued, TaskState::Assigned, TaskState::Running].map(i32::from);
        let request = ListTasksRequest {
            parent: rota_proto::names::namespace(NAMESPACE),
            filter: Some(TaskFilter { states: states.to_vec(), ..Default::default() }),
            ..Default::default()
        };
        for task in client.all_tasks(request, None).await? {
            let mut log = client.watch_task(task.name, 0);
            while log.next().await.transpose()?.is_some() {}
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.context("the tasks did not finish in time")?
}
