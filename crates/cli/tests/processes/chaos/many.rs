//! Very many tasks on each store, while the control plane is killed: none is lost, and none is executed or ends twice, which a watcher of
//! all of them sees as well. `make million` runs 1,000,000.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_client::Client;
use rota_proto::v1::{self, TaskState, event::Kind};
use rota_telemetry::{OnExit, spawn};
use rota_testkit::postgres::PostgresServer;
use rota_testkit::tasks;
use tokio::time::{Instant, sleep, timeout};

use super::load::SCRIPTED;
use super::variable;
use crate::process::Process;
use crate::replicas::Replicas;
use crate::{Fixture, Graces};

/// Environment variable: the number of tasks on each store.
const TASKS: &str = "ROTA_CHAOS_TASKS";
const DEFAULT_TASKS: u64 = 3000;
/// Tasks for which the control plane is killed once more.
const TASKS_PER_KILL: u64 = 50_000;
const MIN_KILLS: u64 = 2;
/// Tasks of one call, and tasks that may wait before further ones are created.
const BATCH: u64 = 500;
const MAX_WAITING: u64 = 50_000;
const WORKERS: [&str; 2] = ["echo-0", "echo-1"];
const SLOTS: usize = 64;
/// Longest time without the end of any task: a takeover, on a busy machine.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Control plane on one of the stores.
enum Plane {
    File(Fixture),
    Database(Replicas),
}

impl Plane {
    fn fixture(&self) -> &Fixture {
        match self {
            Self::File(fixture) => fixture,
            Self::Database(replicas) => &replicas.fixture,
        }
    }

    /// Kills the control plane that owns the store, and starts it again.
    async fn kill(&mut self, random: &mut StdRng) -> Result<()> {
        let replicas = match self {
            Self::File(fixture) => {
                fixture.kill_server().await;
                sleep(Duration::from_millis(random.random_range(0..1000))).await;
                return fixture.start_server().await;
            }
            Self::Database(replicas) => replicas,
        };
        let owner = replicas.owner_of(&[0, 1]).await?;
        replicas.running[owner].take().context("no owner")?.kill().await;
        replicas.owner_of(&[1 - owner]).await?;
        replicas.start_one(owner, "standing by").await;
        Ok(())
    }
}

/// Ends that a watcher has seen: by the number of the task, the position of the entry.
type Ends = HashMap<u64, i64>;

/// Takes in a response. Entries may repeat, and a task has one end.
fn take(ends: &mut Ends, response: v1::WatchTasksResponse) -> Result<()> {
    ensure!(!response.resync, "the watcher has lost its position");
    let Some(task) = response.task else { return Ok(()) };
    for event in response.events {
        let Some(Kind::State(change)) = event.kind else { continue };
        if !change.to().is_final() {
            continue;
        }
        ensure!(change.to() == TaskState::Succeeded, "{}: {change:?}", task.name);
        let title = task.spec.as_ref().map_or("", |spec| spec.title.as_str());
        let number = title.parse().with_context(|| task.name.clone())?;
        let first = *ends.entry(number).or_insert(event.log_seq);
        ensure!(first == event.log_seq, "{} ended twice: at {first} and {}", task.name, event.log_seq);
    }
    Ok(())
}

/// Creates tasks that are numbered in their titles and their keys.
async fn create(client: &Client, numbers: std::ops::Range<u64>) -> Result<()> {
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let requests = numbers.map(|number| {
        let mut task = tasks::scripted(SCRIPTED, []);
        task.spec.get_or_insert_default().title = number.to_string();
        let idempotency_key = format!("many-{number}");
        v1::CreateTaskRequest { task: Some(task), idempotency_key, ..Default::default() }
    });
    let batch = v1::BatchCreateTasksRequest { parent, requests: requests.collect(), ..Default::default() };
    for result in client.batch_create_tasks(batch).await?.results {
        if let Some(v1::batch_create_tasks_result::Kind::Error(error)) = result.kind {
            bail!("a task was not created: {error:?}");
        }
    }
    Ok(())
}

/// Reads the tasks in pages. Each one succeeded in its first attempt.
async fn check(client: &Client, count: u64) -> Result<()> {
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let mut request = v1::ListTasksRequest { parent, page_size: 1000, ..Default::default() };
    let mut found = 0;
    loop {
        let page = client.list_tasks(request.clone()).await?;
        for task in page.tasks {
            let status = task.status.unwrap_or_default();
            let once = status.state() == TaskState::Succeeded && status.attempt == 1;
            ensure!(once, "{}: {status:?}", task.name);
            found += 1;
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    ensure!(found == count, "{found} tasks of {count} are there");
    Ok(())
}

async fn run(plane: &mut Plane, count: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(count);
    let client = plane.fixture().client()?;
    tasks::agent(&client, SCRIPTED, tasks::script([]), &[]).await?;
    let mut workers: Vec<Process> = Vec::new();
    for name in WORKERS {
        workers.push(plane.fixture().worker(SCRIPTED, name, SLOTS).await?);
    }
    let mut watch = client.watch_tasks(rota_proto::names::namespace(tasks::NAMESPACE), "", true);
    watch.next().await.context("nothing came")??;
    let (began, mut ends, mut created) = (Instant::now(), Ends::new(), 0);
    let kills = (count / TASKS_PER_KILL).max(MIN_KILLS);
    let mut killed = 0;
    loop {
        let more = |created, ends: &Ends| created < count && created - (ends.len() as u64) < MAX_WAITING;
        if more(created, &ends) {
            let until = (created + BATCH).min(count);
            // A kill meets creations, too: calls are repeated.
            let creating = spawn("create", OnExit::Done, {
                let client = client.clone();
                async move { create(&client, created..until).await }
            });
            if killed < kills && created >= count * killed / kills {
                plane.kill(&mut random).await?;
                killed += 1;
            }
            creating.await??;
            created = until;
        }
        for _ in 0..BATCH {
            if ends.len() as u64 == created {
                break;
            }
            let creates = more(created, &ends);
            let limit = if creates { Duration::from_millis(1) } else { STALL_TIMEOUT };
            match timeout(limit, watch.next()).await {
                Ok(response) => take(&mut ends, response.context("the watch ended")??)?,
                Err(_) if creates => break,
                Err(_) => bail!("{} of {created} tasks ended, and no further one", ends.len()),
            }
        }
        if ends.len() as u64 == count {
            break;
        }
    }
    println!("{count} tasks, {killed} kills, {} s", began.elapsed().as_secs());
    check(&client, count).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_on_a_file_survive_kills() -> Result<()> {
    let mut plane = Plane::File(Fixture::start(Graces::LONG).await?);
    run(&mut plane, variable(TASKS, DEFAULT_TASKS)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_on_a_database_survive_kills() -> Result<()> {
    let url = PostgresServer::shared().database()?;
    let mut plane = Plane::Database(Replicas::start(url, Graces::LONG, 2).await?);
    run(&mut plane, variable(TASKS, DEFAULT_TASKS)?).await
}
