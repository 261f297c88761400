//! Three replicas on one PostgreSQL, with hundreds of tasks, while owners, standbys, workers and the database are killed,
//! frozen, stopped, full and cut off, and clocks are wrong. A run fails if a rule was violated, or if a kind of fault never took effect.

mod callers;
mod database;
mod workers;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rota_telemetry::clock;
use rota_testkit::postgres::{PostgresServer, Stop};
use rota_testkit::{Proxy, history, tasks};
use tokio::time::{Instant, sleep};

use self::callers::Callers;
use self::database::entrance;
use super::load::{Load, SCRIPTED};
use super::{Counts, MAX_TRIES, TASKS, seeds};
use crate::process::Process;
use crate::replicas::Replicas;
use crate::{Fixture, Graces, faked_clock, workload};

const REPLICAS: usize = 3;
/// Workers come back within these graces, over a takeover or a replica that is started again: what they have is lost with a worker alone.
const GRACES: Graces = Graces { reconnect: "60s", recovery: "60s", ..Graces::CHAOS };
/// Size of the volume of the database, in bytes.
const VOLUME: &str = "192m";
/// Hours by which the clocks of the replicas are wrong from the beginning.
const OFFSETS: [i64; REPLICAS] = [0, -48, 48];
/// Difference, in seconds, from which on times are not the same.
const DIFFERENCE: i64 = 1800;
/// Names and agents of the workers, those that run scripts first.
const WORKERS: [(&str, &str); 4] =
    [("echo-0", SCRIPTED), ("echo-1", SCRIPTED), ("shell-0", workload::AGENT), ("shell-1", workload::AGENT)];
const STANDS_BY: &str = "standing by";
const CONNECTED_AGAIN: &str = "connected to the database again";

#[derive(Debug, Clone, Copy)]
enum Fault {
    OwnerKilled,
    OwnerStopped,
    OwnerFrozen,
    StandbyKilled,
    StandbyFrozen,
    StandbyCutOff,
    AllRestarted,
    WorkerKilled,
    DatabaseRestarted,
    DatabaseCrashed,
    SessionsEnded,
    OwnerCutOff,
    OwnerUnanswered,
    ClockJumped,
    DatabaseFull,
}

impl Fault {
    const ALL: [Self; 15] = [
        Self::OwnerKilled,
        Self::OwnerStopped,
        Self::OwnerFrozen,
        Self::StandbyKilled,
        Self::StandbyFrozen,
        Self::StandbyCutOff,
        Self::AllRestarted,
        Self::WorkerKilled,
        Self::DatabaseRestarted,
        Self::DatabaseCrashed,
        Self::SessionsEnded,
        Self::OwnerCutOff,
        Self::OwnerUnanswered,
        Self::ClockJumped,
        Self::DatabaseFull,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OwnerKilled => "owner killed",
            Self::OwnerStopped => "owner stopped",
            Self::OwnerFrozen => "owner frozen beyond its lease",
            Self::StandbyKilled => "standby killed",
            Self::StandbyFrozen => "standby frozen",
            Self::StandbyCutOff => "standby cut off from the database",
            Self::AllRestarted => "all replicas restarted in turn",
            Self::WorkerKilled => "worker killed",
            Self::DatabaseRestarted => "database restarted",
            Self::DatabaseCrashed => "database crashed",
            Self::SessionsEnded => "sessions of the database ended",
            Self::OwnerCutOff => "owner cut off from the database",
            Self::OwnerUnanswered => "answers of the database lost",
            Self::ClockJumped => "clock of the owner set forward",
            Self::DatabaseFull => "volume of the database full",
        }
    }

    /// Whether attempts may be lost, and repeated: those of a worker whose process has ended. Whatever happens to replicas and to the
    /// database passes within the graces, in which workers keep theirs.
    fn costs_attempts(self) -> bool {
        matches!(self, Self::WorkerKilled)
    }
}

struct World {
    server: PostgresServer,
    replicas: Replicas,
    /// Routes of the replicas to the database.
    routes: Vec<Proxy>,
    owner: usize,
    /// Hours by which clocks are wrong.
    offsets: [i64; REPLICAS],
    workers: Vec<Process>,
    /// When the last fault began, or the replica in question was stopped.
    since: Instant,
}

impl World {
    async fn start() -> Result<Self> {
        let server = PostgresServer::on_small_volume(VOLUME)?;
        let library = faked_clock::library()?;
        let mut fixture = Fixture::bare();
        fixture.graces = GRACES;
        let mut replicas = Replicas::prepare(fixture, server.database()?, REPLICAS)?;
        let database = replicas.url.rsplit('/').next().unwrap_or_default().to_owned();
        let entrance = entrance(server.socket().join(".s.PGSQL.5432")).await?;
        let mut routes = Vec::new();
        for _ in 0..REPLICAS {
            let route = Proxy::start(entrance).await?;
            replicas.routes.push(format!("postgres://rota@{}/{database}", route.addr()));
            routes.push(route);
        }
        for (index, offset) in OFFSETS.into_iter().enumerate() {
            let clock = replicas.fixture.dir().join(format!("clock-{index}"));
            set_clock(&clock, offset)?;
            replicas.environments.push(faked_clock::environment(
                &library,
                [
                    ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
                    ("FAKETIME_CACHE_DURATION", "1".to_owned()),
                ],
            ));
        }
        replicas.start_all().await;
        let client = replicas.fixture.client()?;
        tasks::agent(&client, SCRIPTED, tasks::script([]), &[]).await?;
        workload::agent(&client).await?;
        let mut workers = Vec::new();
        for (name, agent) in WORKERS {
            workers.push(replicas.fixture.worker(agent, name, 4).await?);
        }
        let world =
            Self { server, replicas, routes, owner: 0, offsets: OFFSETS, workers, since: Instant::now() };
        // An owner that is cut off ends if it knows that others wait, which it learns when it renews its lease.
        let before = world.registration(world.owner)?;
        tasks::eventually("an owner that knows the others", async || {
            Ok(world.registration(world.owner)? != before)
        })
        .await?;
        Ok(world)
    }

    /// Waits until another replica owns the database.
    async fn replaced(&mut self) -> Result<()> {
        let others: Vec<_> = (0..REPLICAS).filter(|index| *index != self.owner).collect();
        self.owner = self.replicas.owner_of(&others).await?;
        eprintln!("replica {} owns the database after {} ms", self.owner, self.since.elapsed().as_millis());
        Ok(())
    }

    /// Lets a fault happen and pass. Returns how often it took effect.
    async fn inflict(&mut self, fault: Fault, random: &mut StdRng) -> Result<usize> {
        sleep(Duration::from_millis(random.random_range(100..600))).await;
        self.since = Instant::now();
        let owner = self.owner;
        match fault {
            Fault::OwnerKilled => {
                self.replicas.running[owner].take().context("no owner")?.kill().await;
                self.replaced().await?;
                self.replicas.start_one(owner, STANDS_BY).await;
            }
            Fault::OwnerStopped => return self.restarted(owner).await,
            Fault::AllRestarted => {
                // As an upgrade does.
                let mut handovers = 0;
                for index in 0..REPLICAS {
                    handovers += self.restarted(index).await?;
                }
                return Ok(handovers);
            }
            Fault::OwnerFrozen => {
                self.replicas.replica(owner).signal(Signal::SIGSTOP);
                self.replaced().await?;
                self.replicas.replica(owner).signal(Signal::SIGCONT);
                let ended = self.replicas.running[owner].take().context("no owner")?.ended().await;
                ensure!(!ended.status.success(), "the frozen owner has ended without an error: {ended:?}");
                self.replicas.start_one(owner, STANDS_BY).await;
            }
            Fault::StandbyKilled => {
                let standby = (owner + 1 + random.random_range(0..REPLICAS - 1)) % REPLICAS;
                self.replicas.running[standby].take().context("no standby")?.kill().await;
                self.replicas.start_one(standby, STANDS_BY).await;
            }
            Fault::StandbyFrozen | Fault::StandbyCutOff => {
                // Some of the time, the one that clients and workers are connected to.
                let index = (owner + 1 + random.random_range(0..REPLICAS - 1)) % REPLICAS;
                let (standby, route) = (self.replicas.replica(index), &self.routes[index]);
                match fault {
                    Fault::StandbyFrozen => standby.signal(Signal::SIGSTOP),
                    _ => route.freeze(),
                }
                let before = self.registration(index)?;
                // For longer than it is from one registration of a standby to the next.
                sleep(Duration::from_millis(random.random_range(4_000..8_000))).await;
                let after = self.registration(index)?;
                standby.signal(Signal::SIGCONT);
                route.open();
                tasks::eventually("a standby that is registered again", async || {
                    let now = self.registration(index)?;
                    Ok(!now.is_empty() && now != after)
                })
                .await?;
                return Ok(usize::from(before == after));
            }
            Fault::OwnerCutOff | Fault::OwnerUnanswered => {
                match fault {
                    // What was sent is committed, and the owner never knows.
                    Fault::OwnerUnanswered => self.routes[owner].mute(),
                    _ => self.routes[owner].freeze(),
                }
                self.replaced().await?;
                let ended = self.replicas.running[owner].take().context("no owner")?.ended().await;
                ensure!(!ended.status.success(), "the owner has ended without an error: {ended:?}");
                self.routes[owner].open();
                self.replicas.start_one(owner, STANDS_BY).await;
            }
            Fault::ClockJumped => return self.clock_jumped(random).await,
            Fault::DatabaseFull => return self.database_full(random).await,
            Fault::WorkerKilled => return self.worker_killed(random).await,
            Fault::DatabaseRestarted => return self.database_away(Stop::Fast, random).await,
            Fault::DatabaseCrashed => return self.database_away(Stop::Immediate, random).await,
            Fault::SessionsEnded => {
                let before = self.reconnections();
                let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE application_name LIKE 'rota-%' AND pid <> pg_backend_pid()";
                self.server.sql(&self.replicas.url, end)?;
                self.back(before).await?;
            }
        }
        Ok(1)
    }

    /// Stops a replica as planned, and starts it again. Returns whether another one has taken over.
    async fn restarted(&mut self, index: usize) -> Result<usize> {
        let process = self.replicas.running[index].take().context("no replica")?;
        self.since = Instant::now();
        process.signal(Signal::SIGTERM);
        let ended = process.ended().await;
        ensure!(ended.status.success(), "{ended:?}");
        let owned = index == self.owner;
        if owned {
            self.replaced().await?;
        }
        self.replicas.start_one(index, STANDS_BY).await;
        Ok(usize::from(owned))
    }

    /// Returns until when a replica is registered in the database.
    fn registration(&self, index: usize) -> Result<String> {
        let sql = format!("SELECT max(expires) FROM rota.replicas WHERE name = 'replica-{index}'");
        self.server.sql(&self.replicas.url, &sql)
    }

    /// How often owners have connected to the database again.
    fn reconnections(&self) -> usize {
        (0..REPLICAS).map(|index| self.replicas.replica(index).count(CONNECTED_AGAIN)).sum()
    }

    /// Waits until the owner has connected again and writes, or another replica has taken over meanwhile: an owner that finds a commit
    /// made which it has refused ends.
    async fn back(&mut self, before: usize) -> Result<()> {
        let others = (0..REPLICAS).filter(|index| *index != self.owner);
        let taken = || others.clone().find(|index| self.replicas.owns(*index));
        let client = self.replicas.fixture.impatient_client()?;
        let writes = async || tasks::create(&client, tasks::scripted(SCRIPTED, [])).await.is_ok();
        tasks::eventually("an owner of the database", async || {
            Ok(taken().is_some() || self.reconnections() > before && writes().await)
        })
        .await?;
        if let Some(owner) = taken() {
            let old = std::mem::replace(&mut self.owner, owner);
            self.replicas.running[old].take().context("no owner")?.ended().await;
            self.replicas.start_one(old, STANDS_BY).await;
        }
        Ok(())
    }

    /// Sets the owner's clock some hours forward. Tasks have the time of the database.
    async fn clock_jumped(&mut self, random: &mut StdRng) -> Result<usize> {
        let now = || clock::unix_micros() / 1_000_000;
        let owner = self.owner;
        self.offsets[owner] += random.random_range(1..5);
        let offset = self.offsets[owner];
        set_clock(&self.replicas.fixture.dir().join(format!("clock-{owner}")), offset)?;
        tasks::eventually("a clock that was set", async || {
            let shown = self.replicas.time_of(owner).await? - now();
            Ok((shown - offset * 3600).abs() < DIFFERENCE)
        })
        .await?;
        let client = self.replicas.fixture.client()?;
        let began = now();
        let task = tasks::create(&client, tasks::scripted(SCRIPTED, [])).await?;
        let created = task.create_time.unwrap_or_default().seconds;
        ensure!(
            (began - DIFFERENCE..=now() + DIFFERENCE).contains(&created),
            "created at {created}, in place of {began}"
        );
        tasks::ended(&client, &task.name).await?;
        Ok(1)
    }
}

/// Sets a clock by some hours.
fn set_clock(file: &Path, hours: i64) -> Result<()> {
    // Replaced in one step: it is read at any time.
    let next = file.with_extension("next");
    fs::write(&next, format!("{hours:+}h"))?;
    Ok(fs::rename(next, file)?)
}

async fn run(seed: u64) -> Result<Counts> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start().await?;
    let client = world.replicas.fixture.client()?;
    let callers = Callers::start(&client).await?;
    let mut lost = world.losses(&client).await?;
    let mut load = Load::new(seed, world.replicas.fixture.mark(), None);
    let mut faults: Vec<Fault> = Fault::ALL.into();
    faults.extend((0..3).map(|_| Fault::ALL[random.random_range(0..Fault::ALL.len())]));
    faults.shuffle(&mut random);
    let chunk = TASKS.div_ceil(faults.len());
    let mut counts = Counts::new();
    for fault in faults {
        for tries in 0..MAX_TRIES {
            load.create(&client, if tries == 0 { chunk } else { chunk / 2 }).await.context("creation")?;
            let effect = world.inflict(fault, &mut random).await.with_context(|| fault.name())?;
            eprintln!("seed {seed}: {}: {effect}", fault.name());
            let before = std::mem::replace(&mut lost, world.losses(&client).await?);
            ensure!(
                lost <= before || fault.costs_attempts(),
                "{}: {before} attempts lost, then {lost}",
                fault.name()
            );
            *counts.entry(fault.name()).or_default() += effect;
            if effect > 0 {
                break;
            }
        }
    }
    for name in &load.names {
        tasks::ended(&client, name).await?;
    }
    callers.end(&client).await?;
    let late = world.losses(&client).await? - lost;
    ensure!(late <= 0, "{late} attempts lost after the last fault");
    let history = history::check(&client, true).await?;
    history.check()?;
    ensure!(history.states.values().sum::<usize>() >= TASKS, "{history:?}");
    let states: BTreeMap<_, _> = history.states;
    eprintln!("seed {seed}: {states:?}");
    let idle: Vec<_> = counts.iter().filter(|(_, count)| **count == 0).map(|(name, _)| name).collect();
    ensure!(idle.is_empty() && counts.len() == Fault::ALL.len(), "without effect: {idle:?}");
    Ok(counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_lose_and_double_nothing() -> Result<()> {
    for seed in seeds(1)? {
        let began = Instant::now();
        let counts = run(seed).await.with_context(|| format!("seed {seed}"))?;
        let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("seed {seed}, {} s: {}", began.elapsed().as_secs(), counts.join(", "));
    }
    Ok(())
}
