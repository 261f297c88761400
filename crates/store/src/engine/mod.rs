//! Engine: executes batches of commands over a [`WriteTxn`]. Loads records, applies the rules of `rota-core`, runs
//! follow-ups in the same transaction, and writes each touched record once.

mod agents;
mod claim;
mod commit;
mod create;
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
use rota_core::{AgentName, Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName};

use self::write_set::WriteSet;
use crate::{Command, Commit, Error, Refused, Reply, Resumed, WriteTxn};

/// State of the single writer over a database.
#[derive(Debug)]
pub struct Engine<T> {
    txn: T,
    rng: StdRng,
    /// Records of tasks on workers: each is needed again soon, and slots bound their number.
    live: HashMap<TaskId, Arc<Task>>,
    /// Tasks on workers, by worker.
    by_worker: HashMap<(Namespace, WorkerName), HashSet<TaskId>>,
    agents: BTreeMap<(Namespace, AgentName), Arc<Agent>>,
    /// Open sessions, with the agent that each worker serves.
    sessions: HashMap<(Namespace, WorkerName), (Epoch, AgentName)>,
    routes: HashMap<Route, RouteId>,
    write_set: WriteSet,
    /// Whether memory may contain the effects of a batch that failed, and has not been reloaded yet.
    stale: bool,
}

/// Replies to the commands of a batch, in order, and the commit that they are a part of.
#[derive(Debug)]
pub struct BatchOutcome {
    pub replies: Vec<Result<Reply, Refused>>,
    pub commit: Commit,
}

impl<T: WriteTxn> Engine<T> {
    /// Loads the state that is kept in memory. `seed` is the source of span ids and jitter.
    pub fn new(txn: T, seed: u64) -> Result<Self, Error> {
        let mut engine = Self {
            txn,
            rng: StdRng::seed_from_u64(seed),
            live: HashMap::new(),
            by_worker: HashMap::new(),
            agents: BTreeMap::new(),
            sessions: HashMap::new(),
            routes: HashMap::new(),
            write_set: WriteSet::default(),
            stale: true,
        };
        engine.reload()?;
        Ok(engine)
    }

    /// Restarts the sequence of span ids, so that a test can compare two engines.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = StdRng::seed_from_u64(seed);
    }

    /// Returns the underlying transaction, for reads that only it offers.
    pub fn txn(&mut self) -> &mut T {
        &mut self.txn
    }

    /// Executes a batch in one transaction. On an error, nothing of it has happened.
    pub fn run(&mut self, batch: Vec<Command>, now: Timestamp) -> Result<BatchOutcome, Error> {
        if self.stale {
            self.reload()?;
        }
        self.txn.begin()?;
        let outcome = self.execute(batch, now).and_then(|done| self.txn.commit().map(|()| done));
        let outcome =
            outcome.map(|(answers, commit)| BatchOutcome { replies: self.replies(answers), commit });
        if outcome.is_err() {
            self.txn.rollback();
            self.stale = true;
            // Preferably now, while the store may still be readable; otherwise before the next batch.
            let _ = self.reload();
        }
        outcome
    }

    /// Replies to a batch as [`Engine::run`] would, and rolls it back.
    pub fn dry_run(
        &mut self,
        batch: Vec<Command>,
        now: Timestamp,
    ) -> Result<Vec<Result<Reply, Refused>>, Error> {
        if self.stale {
            self.reload()?;
        }
        let live = (self.live.clone(), self.by_worker.clone(), self.sessions.clone());
        let known = (self.agents.clone(), self.routes.clone(), self.rng.clone());
        self.txn.begin_dry_run()?;
        let done = self.execute(batch, now);
        let replies = done.map(|(answers, _)| self.replies(answers));
        self.txn.rollback();
        self.write_set = WriteSet::default();
        (self.live, self.by_worker, self.sessions) = live;
        (self.agents, self.routes, self.rng) = known;
        replies
    }

    /// Executes a batch in the open transaction, without committing it.
    fn execute(&mut self, batch: Vec<Command>, now: Timestamp) -> Result<(Answers, Commit), Error> {
        let mut answers = Vec::with_capacity(batch.len());
        for command in batch {
            answers.push(self.command(command, now)?);
            self.follow_up(now)?;
        }
        let commit = self.flush()?;
        Ok((answers, commit))
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
            Command::Prune(prune) => self.prune(prune, now),
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
        let due = self.txn.due(now, limit)?;
        let count = due.len();
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

    /// Loads the state that is kept in memory: at the start, and after a rollback, which leaves effects of the failed
    /// batch in it.
    fn reload(&mut self) -> Result<(), Error> {
        let snapshot = self.txn.snapshot()?;
        self.write_set = WriteSet::default();
        self.live.clear();
        self.by_worker.clear();
        self.routes = snapshot.routes.into_iter().map(|(id, route)| (route, id)).collect();
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
