//! Rounds of `rota bench dispatch`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use rota_proto::v1::{ListTasksRequest, TaskFilter, TaskState};
use rota_telemetry::{OnExit, spawn};
use tokio::time::Instant;

use crate::plane::{Plane, open, task};
use crate::report::{Latency, Report, Round};
use crate::{disk, idle, raw};

/// Number of tasks whose dispatch latency is measured per round.
const TIMED_TASKS: usize = 300;

/// Options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of clients that create tasks, each waiting for the commit.
    pub clients: usize,
    /// Number of workers.
    pub workers: usize,
    /// Slots per worker.
    pub slots: usize,
    /// Number of rounds.
    pub rounds: usize,
    /// Duration of each measurement of a rate.
    pub span: Duration,
    /// Number of idle workers to measure; 0 skips this.
    pub idle_workers: usize,
    /// Program that is started as the control plane of idle workers: `rota`.
    pub program: PathBuf,
    /// Parent directory of the store; the system's temporary directory if unset.
    pub folder: Option<PathBuf>,
}

/// Runs all rounds, and calls `progress` before each step.
pub async fn run(options: Options, progress: impl Fn(&str)) -> Result<Report> {
    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let folder = tempfile::tempdir_in(&parent).context("failed to create a directory for the store")?;
        let folders = ["raw", "plane"].map(|name| folder.path().join(name));
        for path in &folders {
            std::fs::create_dir(path)?;
        }
        progress(&format!("round {number} of {}: the disk alone", options.rounds));
        let at = folder.path().to_owned();
        let fsync = tokio::task::spawn_blocking(move || disk::fsync(&at)).await??;
        progress(&format!("round {number} of {}: the store alone", options.rounds));
        let raw = raw::lives(&folders[0], options.clients, options.span).await?;
        progress(&format!("round {number} of {}: the control plane", options.rounds));
        let plane = Plane::start(open(&folders[1])?, &folders[1], options.workers, options.slots).await?;
        let dispatch_idle = dispatch(&plane).await?;
        let (created, completed, creation) = load(&plane, options.clients, options.span).await?;
        plane.stop().await;
        rounds.push(Round {
            fsync,
            raw_tasks_per_second: raw,
            completed_per_second: completed,
            created_per_second: created,
            ratio: completed / raw,
            creation,
            dispatch_idle,
        });
    }
    let idle = match options.idle_workers {
        0 => None,
        count => {
            progress(&format!("{count} idle workers"));
            let folder = tempfile::tempdir_in(&parent)?;
            Some(idle::measure(&options.program, folder.path(), count).await?)
        }
    };
    Ok(Report {
        clients: options.clients,
        workers: options.workers,
        slots: options.slots,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        optimized: !cfg!(debug_assertions),
        rounds,
        idle,
    })
}

/// Measures the time from the call that creates a task to the start of its attempt, one task at a time.
async fn dispatch(plane: &Plane) -> Result<Latency> {
    let mut latency = Latency::new();
    let mut service = plane.client.tasks();
    for _ in 0..TIMED_TASKS {
        let mut request = task();
        request.task_id = uuid::Uuid::now_v7().to_string();
        let began = plane.attempts.expect(&request.task_id);
        let start = Instant::now();
        service.create_task(request).await?;
        let at = tokio::time::timeout(Duration::from_secs(30), began)
            .await
            .context("a task was not started in time")??;
        latency.record(at.duration_since(start));
    }
    Ok(latency)
}

/// Measures concurrent clients, each creating one task after the other: creations per second, completions per second
/// until the last one, and the latency of creations.
async fn load(plane: &Plane, clients: usize, span: Duration) -> Result<(f64, f64, Latency)> {
    let before = plane.attempts.done();
    let start = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..clients {
        let mut service = plane.client.tasks();
        callers.push(spawn("bench-client", OnExit::Done, async move {
            let mut times = Vec::new();
            while start.elapsed() < span {
                let at = Instant::now();
                service.create_task(task()).await?;
                times.push(at.elapsed());
            }
            Ok::<_, tonic::Status>(times)
        }));
    }
    let mut creation = Latency::new();
    let mut created = 0_u64;
    for caller in callers {
        for time in caller.await?? {
            creation.record(time);
            created += 1;
        }
    }
    let creating = start.elapsed().as_secs_f64();
    settled(plane, before + created).await?;
    let until_done = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let created = created as f64;
    Ok((created / creating, created / until_done, creation))
}

/// Waits until a number of attempts have finished and their results are durable.
pub(crate) async fn settled(plane: &Plane, done: u64) -> Result<()> {
    let wait = async {
        plane.attempts.reach(done).await?;
        // All attempts have run; the results of the last ones may still be in flight.
        let states = [TaskState::Queued, TaskState::Assigned, TaskState::Running].map(i32::from);
        let request = ListTasksRequest {
            parent: rota_proto::names::namespace(crate::plane::NAMESPACE),
            filter: Some(TaskFilter { states: states.to_vec(), ..Default::default() }),
            ..Default::default()
        };
        for task in plane.client.all_tasks(request, None).await? {
            let mut log = plane.client.watch_task(task.name, 0);
            while log.next().await.transpose()?.is_some() {}
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.context("the tasks did not finish in time")?
}
