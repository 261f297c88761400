//! The rounds of `rota bench dispatch`.

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

/// Tasks whose way to the worker is timed in each round.
const TIMED: usize = 300;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Clients that hand in tasks, each waiting for its creation's commit.
    pub clients: usize,
    /// Workers that do them.
    pub workers: usize,
    /// Slots of each.
    pub slots: usize,
    /// Rounds.
    pub rounds: usize,
    /// How long each rate is measured in a round.
    pub span: Duration,
    /// Idle workers to measure; 0 for none.
    pub idle_workers: usize,
    /// The program to run as a control plane for those: this one.
    pub program: PathBuf,
    /// Where the store lies; a temporary folder if unset.
    pub folder: Option<PathBuf>,
}

/// Measures. `told` hears of each step.
pub async fn run(options: Options, told: impl Fn(&str)) -> Result<Report> {
    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let folder = tempfile::tempdir_in(&parent).context("no folder for the store")?;
        let folders = ["raw", "plane"].map(|name| folder.path().join(name));
        for path in &folders {
            std::fs::create_dir(path)?;
        }
        told(&format!("round {number} of {}: the disk alone", options.rounds));
        let at = folder.path().to_owned();
        let fsync = tokio::task::spawn_blocking(move || disk::fsync(&at)).await??;
        told(&format!("round {number} of {}: the store alone", options.rounds));
        let raw = raw::lives(&folders[0], options.clients, options.span).await?;
        told(&format!("round {number} of {}: the control plane", options.rounds));
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
            told(&format!("{count} idle workers"));
            let folder = tempfile::tempdir_in(&parent)?;
            Some(idle::measure(&options.program, folder.path(), count).await?)
        }
    };
    Ok(Report {
        clients: options.clients,
        workers: options.workers,
        slots: options.slots,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        optimised: !cfg!(debug_assertions),
        rounds,
        idle,
    })
}

/// From the call that creates to the agent's first step, one task at a time.
async fn dispatch(plane: &Plane) -> Result<Latency> {
    let mut latency = Latency::new();
    let mut service = plane.client.tasks();
    for _ in 0..TIMED {
        let mut request = task();
        request.task_id = uuid::Uuid::now_v7().to_string();
        let began = plane.notes.expect(&request.task_id);
        let start = Instant::now();
        service.create_task(request).await?;
        let at =
            tokio::time::timeout(Duration::from_secs(30), began).await.context("a task never began")??;
        latency.record(at.duration_since(start));
    }
    Ok(latency)
}

/// Many clients, each handing in one task after the other. Creations a second, completions a second until
/// the last one is done, and how long a creation took.
async fn load(plane: &Plane, clients: usize, span: Duration) -> Result<(f64, f64, Latency)> {
    let before = plane.notes.done();
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

/// Waits until so many attempts are done and their results are durable.
pub(crate) async fn settled(plane: &Plane, done: u64) -> Result<()> {
    let wait = async {
        plane.notes.reach(done).await?;
        // All have run; the results of the last few are on their way.
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
    tokio::time::timeout(Duration::from_secs(120), wait).await.context("the tasks were not done")?
}
