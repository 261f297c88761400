//! Carries out batches of commands over [`Tables`]: loads records, lets `rota-core` decide, runs
//! follow-ups to their end in the same transaction, and writes each touched record once.

mod agents;
mod claim;
mod create;
mod links;
mod queue;
mod sessions;
mod waits;
mod working;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{self, Task};
use rota_core::{AgentName, Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName};

use self::working::Working;
use crate::{Command, Commit, Error, Refused, Reply, Resumed, Tables};

/// The one writer's state over a set of tables.
#[derive(Debug)]
pub struct Engine<T> {
    tables: T,
    rng: StdRng,
    /// Records of tasks on workers: each will be needed again soon, and their number is bounded by slots.
    live: HashMap<TaskId, Arc<Task>>,
    /// Which of them each worker has.
    by_worker: HashMap<(Namespace, WorkerName), HashSet<TaskId>>,
    agents: BTreeMap<(Namespace, AgentName), Arc<Agent>>,
    /// Workers' sessions that have not ended.
    sessions: HashMap<(Namespace, WorkerName), Epoch>,
    routes: HashMap<Route, RouteId>,
    working: Working,
    /// What is in memory may hold what never happened, and could not be loaded anew yet.
    stale: bool,
}

/// What a batch came to.
#[derive(Debug)]
pub struct Outcome {
    /// One for each command.
    pub replies: Vec<Result<Reply, Refused>>,
    /// What changed.
    pub commit: Commit,
}

impl<T: Tables> Engine<T> {
    /// Loads what is kept in memory. `seed` feeds span ids and jitter.
    pub fn new(tables: T, seed: u64) -> Result<Self, Error> {
        let mut engine = Self {
            tables,
            rng: StdRng::seed_from_u64(seed),
            live: HashMap::new(),
            by_worker: HashMap::new(),
            agents: BTreeMap::new(),
            sessions: HashMap::new(),
            routes: HashMap::new(),
            working: Working::default(),
            stale: true,
        };
        engine.learn()?;
        Ok(engine)
    }

    /// Begins the row of span ids anew, so that a test can compare two engines.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = StdRng::seed_from_u64(seed);
    }

    /// The tables, for a look at what only they tell.
    pub fn tables(&mut self) -> &mut T {
        &mut self.tables
    }

    /// Carries out a batch in one transaction. On an error nothing of it has happened.
    pub fn run(&mut self, batch: Vec<Command>, now: Timestamp) -> Result<Outcome, Error> {
        if self.stale {
            self.learn()?;
        }
        self.tables.begin()?;
        let outcome = self.run_open(batch, now);
        if outcome.is_err() {
            self.tables.rollback();
            self.stale = true;
            // Best at once, while the store may still be readable; else before the next batch.
            let _ = self.learn();
        }
        outcome
    }

    fn run_open(&mut self, batch: Vec<Command>, now: Timestamp) -> Result<Outcome, Error> {
        let mut answers = Vec::with_capacity(batch.len());
        for command in batch {
            answers.push(self.command(command, now)?);
            self.follow_up(now)?;
        }
        let commit = self.flush()?;
        self.tables.commit()?;
        let records = self.settle_memory();
        let replies = answers.into_iter().map(|answer| answer.map(|answer| answer.tell(&records))).collect();
        Ok(Outcome { replies, commit })
    }

    fn command(&mut self, command: Command, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        match command {
            Command::Create(create) => self.create(*create, now),
            Command::Task { namespace, id, command } => self.one(&namespace, id, command, now),
            Command::Claim(claim) => self.claim(claim, now),
            Command::Tick { limit } => self.tick(limit, now),
            Command::OpenSession(open) => self.open_session(open, now),
            Command::EndSession(end) => self.end_session(end, now),
            Command::PutAgent(put) => self.put_agent(put, now),
            Command::DeleteAgent { namespace, name } => self.delete_agent(&namespace, &name, now),
            Command::Prune { before, limit } => self.prune(before, limit),
        }
    }

    fn one(
        &mut self,
        namespace: &Namespace,
        id: TaskId,
        command: task::Command,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        match self.load(id)? {
            Some(task) if task.namespace == *namespace => {}
            _ => return Ok(Err(Refused::NoTask(id))),
        }
        Ok(self.apply(id, command, now)?.map(|reply| Answer::Task(id, reply)))
    }

    fn tick(&mut self, limit: usize, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        let due = self.tables.due(now, limit)?;
        let count = due.len();
        for id in due {
            // Another command of this batch may have ended it.
            let _ = self.apply(id, task::Command::Tick, now)?;
        }
        Ok(Ok(Reply::Ticked(count).into()))
    }

    fn prune(&mut self, before: Timestamp, limit: usize) -> Result<Result<Answer, Refused>, Error> {
        let ids = self.tables.ended_before(before, limit)?;
        let mut count = 0;
        for id in ids {
            if self.working.holds(id) {
                continue;
            }
            if let Some(task) = self.tables.task(id)?.filter(|task| task.state.is_final()) {
                self.tables.delete_task(&task)?;
                if task.target.is_own() {
                    self.routes.remove(&task.route());
                }
                count += 1;
            }
        }
        Ok(Ok(Reply::Pruned(count).into()))
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        // Zero means "none" in trace ids.
        if bytes == [0; N] { [1; N] } else { bytes }
    }

    /// Loads what is kept in memory: at the start, and after a rollback, since then it may hold what never happened.
    fn learn(&mut self) -> Result<(), Error> {
        let snapshot = self.tables.snapshot()?;
        self.working = Working::default();
        self.live.clear();
        self.by_worker.clear();
        self.routes = snapshot.routes.into_iter().map(|(id, route)| (route, id)).collect();
        let agents = snapshot.agents.into_iter();
        self.agents =
            agents.map(|agent| ((agent.namespace.clone(), agent.name.clone()), Arc::new(agent))).collect();
        let sessions = snapshot.sessions.into_iter();
        self.sessions =
            sessions.map(|session| ((session.namespace, session.worker), session.epoch)).collect();
        for (_, task) in snapshot.on_workers {
            self.keep(Arc::new(task));
        }
        self.stale = false;
        Ok(())
    }
}

/// A reply before its record is final: it tells the record as the whole batch leaves it, which is what becomes durable.
#[derive(Debug)]
enum Answer {
    Created(TaskId),
    Existing(TaskId),
    Task(TaskId, task::Reply),
    Session(Epoch, Vec<(TaskId, Fence, Option<u64>)>),
    Reply(Reply),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl Answer {
    fn tell(self, records: &HashMap<TaskId, Arc<Task>>) -> Reply {
        // Every task that a command touched is among the records; `run_open` loaded it.
        let record = |id: TaskId| records.get(&id).cloned();
        let told = match self {
            Self::Created(id) => record(id).map(Reply::Created),
            Self::Existing(id) => record(id).map(Reply::Existing),
            Self::Task(id, reply) => record(id).map(|task| Reply::Task(task, reply)),
            Self::Session(epoch, attempts) => {
                let resumed = attempts.into_iter().map(|(id, fence, seq)| Resumed {
                    id,
                    fence,
                    live: seq.and_then(|seq| Some((record(id)?, seq))),
                });
                Some(Reply::Session(epoch, resumed.collect()))
            }
            Self::Reply(reply) => Some(reply),
        };
        told.unwrap_or(Reply::Deleted)
    }
}
