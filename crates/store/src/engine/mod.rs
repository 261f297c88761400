//! Engine: executes batches of commands over a [`Backend`], in phases. It collects the keys that the batch needs, loads
//! what memory lacks in one call, decides in memory by the rules of `rota-core`, and writes each touched record once, in
//! one call.
//!
//! A key that only shows while deciding (a dependent, a cycle) costs a further load; follow-ups load once per round.
//! Nothing reaches the database before the write, and memory changes only after it: a batch that fails, and a dry run,
//! leave nothing behind.

mod agents;
mod cache;
mod claim;
mod collect;
mod commit;
mod create;
mod dry_run;
mod links;
mod prune;
mod queue;
mod sessions;
mod waits;
mod write_set;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{self, Task};
use rota_core::{AgentName, Epoch, Fence, Namespace, RouteId, TaskId, Timestamp};

use self::write_set::WriteSet;
use crate::{Backend, Command, Commit, Error, Keys, Refused, Reply, Resumed, SessionKey};

type AgentKey = (Namespace, AgentName);

/// State of a shard's single writer.
#[derive(Debug)]
pub struct Engine<B> {
    backend: B,
    rng: StdRng,
    /// Records of tasks on workers: each is needed again soon, and slots bound their number.
    live: HashMap<TaskId, Arc<Task>>,
    /// Tasks on workers, by worker.
    by_worker: HashMap<SessionKey, HashSet<TaskId>>,
    agents: BTreeMap<AgentKey, Arc<Agent>>,
    /// Open sessions, with the agent that each worker serves.
    sessions: HashMap<SessionKey, (Epoch, AgentName)>,
    routes: HashMap<Route, RouteId>,
    last_route: u32,
    /// The last route that a prune looked at.
    last_idle_route: RouteId,
    /// Revision of the last commit.
    revision: u64,
    next_due: Option<Timestamp>,
    /// Records that cannot be decoded, and are left alone.
    undecodable: HashSet<TaskId>,
    /// Records that the snapshot could not decode, to be reported by the next commit.
    unreported: Vec<(TaskId, String)>,
    write_set: WriteSet,
    /// Whether the batch is a dry run, which leaves memory as it is.
    dry: bool,
    /// Whether live records may be missing after a failed batch, and have not been reloaded yet.
    stale: bool,
}

/// Replies to the commands of a batch, in order, and the commit that they are a part of.
#[derive(Debug)]
pub struct BatchOutcome {
    pub replies: Vec<Result<Reply, Refused>>,
    pub commit: Commit,
}

impl<B: Backend> Engine<B> {
    /// Loads the state that is kept in memory. `seed` is the source of span ids and jitter.
    pub fn new(backend: B, seed: u64) -> Result<Self, Error> {
        let mut engine = Self {
            backend,
            rng: StdRng::seed_from_u64(seed),
            live: HashMap::new(),
            by_worker: HashMap::new(),
            agents: BTreeMap::new(),
            sessions: HashMap::new(),
            routes: HashMap::new(),
            last_route: 0,
            last_idle_route: RouteId(0),
            revision: 0,
            next_due: None,
            undecodable: HashSet::new(),
            unreported: Vec::new(),
            write_set: WriteSet::default(),
            dry: false,
            stale: true,
        };
        engine.reload()?;
        Ok(engine)
    }

    /// Restarts the sequence of span ids, so that a test can compare two engines.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = StdRng::seed_from_u64(seed);
    }

    /// Returns the backend, for tests of its rows.
    pub fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Executes a batch and makes it durable. On an error, nothing of it has happened.
    pub fn run(&mut self, batch: Vec<Command>, now: Timestamp) -> Result<BatchOutcome, Error> {
        if self.stale {
            self.reload()?;
        }
        let outcome = self.execute(batch, now).and_then(|answers| {
            let (changes, mut commit) = self.flush(now);
            // A batch without changes costs no commit.
            if let Some(changes) = changes {
                self.next_due = self.backend.write(&changes)?.next_due;
                self.revision = changes.revision;
                self.last_route = changes.last_route;
                self.undecodable.extend(&changes.undecodable);
            }
            commit.next_due = self.next_due;
            Ok(BatchOutcome { replies: self.replies(answers), commit })
        });
        if outcome.is_err() {
            self.write_set = WriteSet::default();
            self.stale = true;
            // Preferably now, while the store may still be readable; otherwise before the next batch.
            let _ = self.reload();
        }
        outcome
    }

    /// Loads what a batch needs, and executes it in memory.
    fn execute(&mut self, batch: Vec<Command>, now: Timestamp) -> Result<Answers, Error> {
        self.take_unreported();
        let keys = self.collect(&batch, now);
        self.fetch(&keys)?;
        let mut answers = Vec::with_capacity(batch.len());
        for command in batch {
            answers.push(self.command(command, now)?);
            self.follow_up(now)?;
        }
        self.complete_assignments()?;
        Ok(answers)
    }

    fn replies(&mut self, answers: Answers) -> Vec<Result<Reply, Refused>> {
        let records = self.settle_memory();
        answers.into_iter().map(|answer| answer.map(|answer| answer.into_reply(&records))).collect()
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
            Command::Prune(prune) => self.prune(prune),
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
            Some(_) => return Ok(Err(Refused::NoTask(id))),
            None => return Ok(Err(self.absent(id))),
        }
        Ok(self.apply(id, command, now)?.map(|reply| Answer::Task(id, reply)))
    }

    fn tick(&mut self, limit: usize, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        let mut due = self.write_set.cache.due.clone().unwrap_or_default();
        due.truncate(limit);
        let count = due.len();
        self.fetch_unknown(Keys { dependents: due.clone(), ..Keys::default() })?;
        for id in due {
            // Another command of the batch may have ended it.
            let _ = self.apply(id, task::Command::Tick, now)?;
        }
        Ok(Ok(Reply::Ticked(count).into()))
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        // Zero means "none" in trace ids.
        if bytes == [0; N] { [1; N] } else { bytes }
    }

    /// Loads the state that is kept in memory: at the start, and after a failed batch, which may have taken live records
    /// out of it.
    fn reload(&mut self) -> Result<(), Error> {
        let snapshot = self.backend.snapshot()?;
        self.write_set = WriteSet::default();
        self.live.clear();
        self.by_worker.clear();
        self.routes = snapshot.routes.into_iter().map(|(id, route)| (route, id)).collect();
        self.last_route = snapshot.last_route;
        self.revision = snapshot.revision;
        self.next_due = snapshot.next_due;
        self.unreported = snapshot.undecodable;
        let agents = snapshot.agents.into_iter();
        self.agents =
            agents.map(|agent| ((agent.namespace.clone(), agent.name.clone()), Arc::new(agent))).collect();
        let sessions = snapshot.sessions.into_iter();
        self.sessions = sessions
            .map(|session| ((session.namespace, session.worker), (session.epoch, session.agent)))
            .collect();
        for (_, task) in snapshot.on_workers {
            self.keep(Arc::new(task));
        }
        self.stale = false;
        Ok(())
    }

    /// Takes in the records that the snapshot could not decode.
    fn take_unreported(&mut self) {
        if !self.dry {
            self.write_set.undecodable.extend(std::mem::take(&mut self.unreported));
        }
    }
}

type Answers = Vec<Result<Answer, Refused>>;

/// Reply whose record is not final yet: replies carry the record as the whole batch leaves it, which is what becomes
/// durable.
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
    fn into_reply(self, records: &HashMap<TaskId, Arc<Task>>) -> Reply {
        // `execute` has loaded every task that a command touched.
        let record = |id: TaskId| records.get(&id).cloned();
        let reply = match self {
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
        reply.unwrap_or(Reply::Deleted)
    }
}
