//! Faults that come and pass. Each returns how often it took effect: what it hit was at work, and noticed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rand::Rng;
use rand::rngs::StdRng;
use rota_client::Client;
use rota_proto::v1;
use rota_testkit::tasks;
use tokio::time::{Instant, sleep};

use super::load::SCRIPTED;
use super::world::World;
use crate::procfs;

/// Silence after which the control plane gives a worker's tasks to others, and more.
const TOO_LONG: Duration = Duration::from_secs(7);
/// Time in which some worker starts a program.
const AT_WORK_LIMIT: Duration = Duration::from_secs(20);
/// Time for which the store takes no writes: more than the reconnect grace.
const MINUTE: Duration = Duration::from_secs(60);
/// Size of a prompt that does not fit into a full store, in bytes.
const LARGE: usize = 1 << 20;
const JOINED: &str = "worker joined";
const JUMPED: &str = "the clock jumped forward";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    WorkerKilled,
    WorkerStopped,
    WorkerTerminated,
    ConnectionFrozen,
    ConnectionCut,
    Forbidden,
    ServerKilled,
    ServerStopped,
    StoreFull,
    StoreFullForAMinute,
    ClockJumped,
}

impl Fault {
    pub(crate) const ALL: [Self; 11] = [
        Self::WorkerKilled,
        Self::WorkerStopped,
        Self::WorkerTerminated,
        Self::ConnectionFrozen,
        Self::ConnectionCut,
        Self::Forbidden,
        Self::ServerKilled,
        Self::ServerStopped,
        Self::StoreFull,
        Self::StoreFullForAMinute,
        Self::ClockJumped,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled => "supervisors without their worker",
            Self::WorkerStopped => "worker stopped",
            Self::WorkerTerminated => "worker terminated",
            Self::ConnectionFrozen => "connection frozen",
            Self::ConnectionCut => "connection cut",
            Self::Forbidden => "calls forbidden",
            Self::ServerKilled => "control plane killed",
            Self::ServerStopped => "control plane stopped",
            Self::StoreFull => "store full",
            Self::StoreFullForAMinute => "no write of the store for a minute",
            Self::ClockJumped => "clock jumped",
        }
    }

    /// Lets it happen and pass.
    pub(crate) async fn inflict(self, world: &mut World, random: &mut StdRng) -> Result<usize> {
        sleep(Duration::from_millis(random.random_range(100..600))).await;
        let index = random.random_range(0..world.workers.len());
        match self {
            Self::WorkerKilled => worker_killed(world, index).await,
            Self::WorkerStopped => {
                world.workers[index].process.signal(Signal::SIGSTOP);
                sleep(TOO_LONG).await;
                let away = !is_connected(world, index).await?;
                world.workers[index].process.signal(Signal::SIGCONT);
                Ok(usize::from(away))
            }
            Self::WorkerTerminated => worker_terminated(world, index).await,
            Self::ConnectionFrozen => {
                world.workers[index].proxy.freeze();
                sleep(TOO_LONG).await;
                let away = !is_connected(world, index).await?;
                world.workers[index].proxy.open();
                Ok(usize::from(away))
            }
            Self::ConnectionCut => {
                world.workers[index].proxy.cut();
                sleep(Duration::from_millis(random.random_range(100..4000))).await;
                let away = !is_connected(world, index).await?;
                world.workers[index].proxy.open();
                Ok(usize::from(away))
            }
            Self::Forbidden => {
                let proxy = &world.workers[index].proxy;
                let before = proxy.refused();
                proxy.refuse();
                tasks::eventually("a refused call", async || Ok(proxy.refused() > before)).await?;
                sleep(Duration::from_millis(random.random_range(0..3000))).await;
                proxy.open();
                Ok(proxy.refused() - before)
            }
            Self::ServerKilled => {
                let running = tasks_on_workers(world).await?;
                world.fixture.kill_server().await;
                sleep(Duration::from_millis(random.random_range(0..3000))).await;
                world.fixture.start_server().await?;
                Ok(running)
            }
            Self::ServerStopped => {
                let before = world.fixture.server().count(JOINED);
                world.fixture.server().signal(Signal::SIGSTOP);
                sleep(TOO_LONG).await;
                world.fixture.server().signal(Signal::SIGCONT);
                let joined = async || Ok(world.fixture.server().count(JOINED) > before);
                tasks::eventually("a worker that connects again", joined).await?;
                Ok(world.fixture.server().count(JOINED) - before)
            }
            Self::StoreFull => store_full(world, random).await,
            Self::StoreFullForAMinute => store_full_for_a_minute(world).await,
            Self::ClockJumped => {
                let before = world.fixture.server().count(JUMPED);
                world.jump()?;
                let noticed = async || Ok(world.fixture.server().count(JUMPED) > before);
                tasks::eventually("notice of the clock", noticed).await?;
                Ok(1)
            }
        }
    }
}

/// Kills a worker whose programs run, and starts it again. Returns how many of its supervisors outlived it, each of which
/// ends its programs.
async fn worker_killed(world: &mut World, first: usize) -> Result<usize> {
    let until = Instant::now() + AT_WORK_LIMIT;
    let (index, supervisors) = loop {
        let all = procfs::marked(world.fixture.mark()).into_iter();
        let supervisors: Vec<_> = all.filter(|one| one.command.contains("__supervise")).collect();
        let of = |index: &usize| {
            let pid = world.workers[*index].process.pid();
            supervisors.iter().filter(|one| one.parent() == Some(pid)).cloned().collect::<Vec<_>>()
        };
        let count = world.workers.len();
        let busy = (first..first + count).map(|index| index % count).find(|index| !of(index).is_empty());
        match busy {
            Some(index) => break (index, of(&index)),
            None if Instant::now() > until => return Ok(0),
            None => sleep(Duration::from_millis(20)).await,
        }
    };
    let worker = &mut world.workers[index];
    worker.process.signal(Signal::SIGKILL);
    worker.process.wait().await;
    let outliving = supervisors.iter().filter(|one| one.is_alive()).count();
    world.start_again(index);
    Ok(outliving)
}

/// Stops a worker as planned, at work, and starts it again. Planned stops are no losses.
async fn worker_terminated(world: &mut World, index: usize) -> Result<usize> {
    let busy = worker(world, index).await?.map_or(0, |worker| worker.tasks.len());
    let worker = &mut world.workers[index];
    worker.process.signal(Signal::SIGTERM);
    worker.process.wait().await;
    world.start_again(index);
    Ok(busy)
}

/// Fills the disk of the store. Nothing that is answered is lost, and all else is refused with the reason.
async fn store_full(world: &mut World, random: &mut StdRng) -> Result<usize> {
    let Some(disk) = &world.fixture.disk else { return Ok(0) };
    let client = world.fixture.impatient_client()?;
    disk.fill()?;
    let until = Instant::now() + Duration::from_millis(random.random_range(2000..8000));
    let mut refused = 0;
    while Instant::now() < until {
        // Large enough to need more space than the database has set aside.
        let mut task = tasks::scripted(SCRIPTED, []);
        task.spec.get_or_insert_default().prompt = "x".repeat(LARGE);
        match tasks::create(&client, task).await {
            Ok(task) => world.created.push(task.name),
            Err(error) => {
                let known = error.downcast_ref::<rota_client::Error>().and_then(|error| error.reason.clone());
                let full = matches!(known.as_deref(), Some("STORE_UNAVAILABLE" | "STORE_NEARLY_FULL"));
                ensure!(full, "{error:#}");
                refused += 1;
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    disk.free()?;
    room_for_tasks(&client).await?;
    Ok(refused)
}

/// Takes all space of the store's disk for a minute, also what the store frees to continue, so that no write succeeds. Returns how many
/// failed for that reason: sessions, and the attempts of their workers, outlast all of them.
async fn store_full_for_a_minute(world: &mut World) -> Result<usize> {
    let disk = world.fixture.disk.as_ref().context("the store has no disk of its own")?;
    let client = world.fixture.impatient_client()?;
    disk.fill()?;
    let until = Instant::now() + MINUTE;
    let mut failed = 0;
    while Instant::now() < until {
        disk.fill_again()?;
        failed += usize::from(is_write_refused(&client).await?);
        sleep(Duration::from_millis(200)).await;
    }
    disk.free()?;
    room_for_tasks(&client).await?;
    tasks::eventually("a write", async || Ok(!is_write_refused(&client).await?)).await?;
    Ok(failed)
}

/// Writes a record for which the store has to grow. Returns whether its disk has no space for that, or as little as the control
/// plane keeps for results.
async fn is_write_refused(client: &Client) -> Result<bool> {
    let mut task = tasks::scripted(SCRIPTED, []);
    task.spec.get_or_insert_default().prompt = "x".repeat(LARGE - 1024);
    let spec = v1::ScheduleSpec {
        cron: "0 0 1 1 *".to_owned(),
        task: Some(task),
        paused: Some(true),
        ..v1::ScheduleSpec::default()
    };
    let namespace = rota_proto::names::namespace(tasks::NAMESPACE);
    // A new one each time: another version of the same takes the space of the last.
    let name = format!("{namespace}/schedules/never-{}", uuid::Uuid::new_v4().simple());
    let schedule = Some(v1::Schedule { name, spec: Some(spec), ..v1::Schedule::default() });
    let request = v1::UpdateScheduleRequest { schedule, allow_missing: true, ..Default::default() };
    match Box::pin(client.update_schedule(request)).await {
        Ok(_) => Ok(false),
        Err(error) => match error.reason.as_deref() {
            Some("STORE_UNAVAILABLE" | "STORE_NEARLY_FULL") => Ok(true),
            _ => Err(error.into()),
        },
    }
}

/// Waits until the control plane accepts tasks again.
async fn room_for_tasks(client: &Client) -> Result<()> {
    tasks::eventually("room for tasks", async || {
        let status = client.get_system_status(v1::GetSystemStatusRequest {}).await?;
        Ok(status.causes.iter().all(|cause| cause.code != "store_space"))
    })
    .await
}

async fn worker(world: &World, index: usize) -> Result<Option<v1::Worker>> {
    let name = world.workers[index].name();
    let workers = tasks::workers(&world.fixture.client()?).await?;
    Ok(workers.into_iter().find(|worker| worker.name.ends_with(name)))
}

async fn is_connected(world: &World, index: usize) -> Result<bool> {
    Ok(worker(world, index).await?.is_some_and(|worker| worker.connected))
}

async fn tasks_on_workers(world: &World) -> Result<usize> {
    Ok(tasks::workers(&world.fixture.client()?).await?.iter().map(|worker| worker.tasks.len()).sum())
}
