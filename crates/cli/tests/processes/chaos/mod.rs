//! A whole Rota as processes, with hundreds of tasks, while everything around them is killed, stopped, full, cut off or
//! wrong. Each seed is one run; `make chaos SEEDS=50` executes many.
//!
//! A run fails if a rule of `docs/guarantees.md` was violated, if anything is left behind, or if a kind of fault never took
//! effect.

mod background;
mod faults;
mod load;
mod many;
mod replicas;
mod workflows;
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rota_client::Client;
use rota_proto::v1::{self, TaskState, event::Kind};
use rota_testkit::{history, tasks};

use crate::procfs;
use faults::Fault;
use load::Load;
use world::World;

/// Tasks of a run, besides those with which a fault is tried again.
const TASKS: usize = 400;
/// How often a fault is tried until it takes effect.
const MAX_TRIES: usize = 5;
/// Environment variables: the number of runs, and the seed of the first.
const SEEDS: &str = "ROTA_CHAOS_SEEDS";
const FIRST: &str = "ROTA_CHAOS_FIRST_SEED";

/// How often each kind of fault took effect.
type Counts = BTreeMap<&'static str, usize>;

/// Executes one run. Returns how often each kind of fault took effect.
async fn run(seed: u64) -> Result<Counts> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start().await?;
    let client = world.fixture.client()?;
    let mut load = Load::new(seed, world.fixture.mark(), Some(world.model.base_url()));
    let mut faults: Vec<Fault> = Fault::ALL.into();
    faults.extend((0..3).map(|_| Fault::ALL[random.random_range(0..Fault::ALL.len())]));
    faults.shuffle(&mut random);
    let chunk = TASKS.div_ceil(faults.len());
    let mut counts = Counts::new();
    for fault in faults {
        for tries in 0..MAX_TRIES {
            load.create(&client, if tries == 0 { chunk } else { chunk / 2 }).await?;
            let effect =
                fault.inflict(&mut world, &mut random).await.with_context(|| format!("{fault:?}"))?;
            eprintln!("seed {seed}: {}: {effect}", fault.name());
            *counts.entry(fault.name()).or_default() += effect;
            if effect > 0 {
                break;
            }
        }
    }
    load.names.append(&mut world.created);
    for name in &load.names {
        tasks::ended(&client, name).await?;
    }
    let history = history::check(&client, true).await?;
    history.check()?;
    ensure!(history.states.values().sum::<usize>() >= TASKS, "{history:?}");
    let logs = Logs::read(&client, &load.names).await?;
    ensure!(logs.overlaps == 0, "{} attempts shared a kept workspace", logs.overlaps);
    counts.extend(logs.counts);
    counts.extend(world.effects(&client).await?);
    left_behind(&world).await?;
    let idle: Vec<_> = counts.iter().filter(|(_, count)| **count == 0).map(|(name, _)| name).collect();
    ensure!(idle.is_empty(), "without effect: {idle:?}");
    Ok(counts)
}

/// What the logs of all tasks show.
struct Logs {
    counts: Counts,
    /// Attempts that found another one in their workspace.
    overlaps: usize,
}

impl Logs {
    async fn read(client: &Client, names: &[String]) -> Result<Self> {
        let expected = ["workers lost", "cancelled", "on skewed clocks", "by Claude"];
        let mut logs = Self { counts: expected.map(|kind| (kind, 0)).into(), overlaps: 0 };
        for name in names {
            let mut worker = String::new();
            for event in tasks::log(client, name).await? {
                match event.kind {
                    Some(Kind::State(change)) => logs.take(change, &mut worker),
                    Some(Kind::Notice(notice)) if notice.code == "stale_result" => {
                        logs.count("late results refused")
                    }
                    _ => {}
                }
            }
        }
        Ok(logs)
    }

    /// Takes in a change of a task that was last on `worker`.
    fn take(&mut self, change: v1::StateChange, worker: &mut String) {
        let exit = change.failure.as_ref().and_then(|failure| failure.exit_code);
        self.overlaps += usize::from(exit == Some(load::OVERLAP));
        let (reason, to) = (change.reason.as_str(), change.to());
        match (reason, to) {
            ("worker_lost", _) => self.count("workers lost"),
            ("worker_returned", _) => self.count("workers returned"),
            ("handed_back", _) => self.count("handed back"),
            (_, TaskState::Cancelled) => self.count("cancelled"),
            (_, TaskState::Succeeded) if world::is_skewed(worker) => self.count("on skewed clocks"),
            (_, TaskState::Succeeded) if worker.starts_with(load::CLAUDE) => self.count("by Claude"),
            _ => {}
        }
        if !change.worker.is_empty() {
            *worker = change.worker;
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }
}

/// Fails if workspaces or processes are left, although every task has ended.
async fn left_behind(world: &World) -> Result<()> {
    let mine = world.pids();
    tasks::eventually("the end of all processes", async || {
        Ok(procfs::marked(world.fixture.mark()).iter().all(|one| mine.contains(&one.pid)))
    })
    .await
    .with_context(|| format!("{:#?}", procfs::marked(world.fixture.mark())))?;
    let state = world.fixture.state_dir();
    // Kept workspaces, what living workers hold, and what they have found out about the CLI.
    let known = ["/kept/", ".owner", ".supervisors", "/claude-probe."];
    let stays = |file: &String| known.iter().any(|part| file.contains(part));
    let left = || files(&state).into_iter().filter(|file| !stays(file)).collect::<Vec<_>>();
    let removed = tasks::eventually("the end of all workspaces", async || Ok(left().is_empty())).await;
    removed.with_context(|| format!("left: {:#?}", left()))
}

/// Returns the paths of all files in a directory, at any depth.
fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.is_dir() && !path.is_symlink() {
            true => found.extend(files(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

fn variable(name: &str, default: u64) -> Result<u64> {
    match rota_telemetry::env::var(name) {
        Some(text) => text.parse().with_context(|| format!("{name} is not a number")),
        None => Ok(default),
    }
}

/// Returns the seeds of the runs.
fn seeds(default: u64) -> Result<std::ops::Range<u64>> {
    let (count, first) = (variable(SEEDS, default)?, variable(FIRST, 1)?);
    Ok(first..first + count)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tasks_finish_exactly_once() -> Result<()> {
    for seed in seeds(2)? {
        let began = tokio::time::Instant::now();
        let counts = Box::pin(run(seed)).await.with_context(|| format!("seed {seed}"))?;
        let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("seed {seed}, {} s: {}", began.elapsed().as_secs(), counts.join(", "));
    }
    Ok(())
}
