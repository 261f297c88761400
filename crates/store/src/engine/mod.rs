//! Engine: executes batches of commands over a [`Backend`], in phases. It collects the keys that the batch needs, loads
//! what memory lacks in one call, decides in memory by the rules of `rota-core`, and writes each touched record once, in
//! one call.
//!
//! A key that only shows while deciding (a dependent, a cycle) costs a further load; follow-ups load once per round.
//! Nothing reaches the database before the write, and memory changes only after it: a batch that fails, and a dry run,
//! leave nothing behind. Consequences for many tasks are spread over several commits (`follow_ups`).

mod acceptance;
mod agents;
mod away;
mod budgets;
mod cache;
mod claim;
mod clock;
mod collect;
mod commit;
mod create;
mod cycles;
mod damage;
mod documents;
mod dry_run;
mod entry;
mod failures;
mod follow_ups;
mod funding;
mod groups;
mod held;
mod links;
mod memory;
mod nested;
mod orphans;
mod prefetch;
mod prune;
mod queue;
mod quota;
mod removal;
mod rounds;
mod routes;
mod secrets;
mod sessions;
mod stuck;
mod threads;
mod visits;
mod workflow_add;
mod workflow_drive;
mod workflow_set;
mod workflow_visits;
mod workflows;
mod write_set;

use std::collections::HashSet;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rota_core::task::{self, State, Task};
use rota_core::{AgentName, Epoch, Fence, Namespace, TaskId, TaskKey, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};

use self::away::Away;
pub use self::away::MIN_OUTAGE;
use self::damage::Damage;
use self::failures::Failures;
use self::held::Held;
use self::memory::Memory;
use self::prune::PruneCursor;
use self::write_set::WriteSet;
use crate::{Backend, Command, Commit, Error, Refused, Reply, Resumed, ScopedId, SessionKey, Snapshot, Tick};

type AgentKey = (Namespace, AgentName);
/// Map by the key of a task. Keys are numbers that the engine assigns: no caller can make them collide.
type KeyMap<V> = FxHashMap<TaskKey, V>;
type KeySet = FxHashSet<TaskKey>;

/// Single writer of a shard, with its memory.
#[derive(Debug)]
pub struct Engine<B> {
    backend: B,
    rng: StdRng,
    /// What is kept between batches.
    memory: Memory,
    /// Where the next prune begins.
    prune_cursor: PruneCursor,
    write_set: WriteSet,
    /// Follow-ups that have failed since the start, by number.
    failures: Failures,
    damage: Damage,
    /// Workers with a session from before the start that have not come back. What is due is not known before they report
    /// what happened meanwhile.
    absent: HashSet<SessionKey>,
    away: Away,
    held: Held,
    /// Whether the batch is a dry run, which leaves memory as it is.
    dry: bool,
    /// Whether memory may differ from the database after a failed batch, and has not been reloaded yet.
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
            memory: Memory::default(),
            prune_cursor: PruneCursor::default(),
            write_set: WriteSet::default(),
            failures: Failures::default(),
            damage: Damage::default(),
            absent: HashSet::new(),
            away: Away::default(),
            held: Held::default(),
            dry: false,
            stale: true,
        };
        let snapshot = engine.backend.snapshot()?;
        engine.away = Away::load(&snapshot);
        engine.absent = snapshot.damaged_sessions().map(|(key, _)| key).collect();
        engine.replace_memory(snapshot);
        engine.absent.extend(engine.memory.sessions.keys().cloned());
        Ok(engine)
    }

    /// Notes when the writer starts: the time since the last write before is not counted as time in the queue.
    pub fn opened(&mut self, now: Timestamp) {
        self.away.opened(now);
    }

    /// Restarts the sequence of span ids, so that a test can compare two engines.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = StdRng::seed_from_u64(seed);
    }

    /// Returns the revision of the last commit.
    pub fn revision(&self) -> u64 {
        self.memory.revision
    }

    /// Returns the backend, for tests of its rows.
    pub fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Whether follow-ups of earlier batches are left, which the next batch continues, also an empty one.
    pub fn has_backlog(&self) -> bool {
        !self.memory.follow_ups.is_empty()
    }

    /// Executes a batch, with or without follow-ups of earlier ones, and makes it durable.
    fn attempt(
        &mut self,
        batch: Vec<Command>,
        now: Timestamp,
        continues: bool,
    ) -> Result<BatchOutcome, Error> {
        if self.stale {
            self.reload()?;
        }
        self.away.begin(now);
        let outcome = self.execute(batch, now, continues).and_then(|answers| {
            let (changes, mut commit) = self.flush(now);
            // A batch without changes costs no commit.
            if let Some(changes) = changes {
                let written = self.backend.write(&changes)?;
                self.memory.written(&changes, written);
                self.damage.set_aside(&changes.workflows);
                self.away.written();
            } else {
                // Another writer may have made the answers untrue.
                self.backend.confirm()?;
            }
            if let Some(cursor) = self.write_set.prune_cursor.take() {
                self.prune_cursor = cursor;
            }
            for key in self.write_set.sessions.keys() {
                self.absent.remove(key);
            }
            let records = self.settle_memory();
            commit.next_due = self.memory.next_due();
            let replies = answers.into_iter().map(|answer| answer.map(|answer| answer.into_reply(&records)));
            Ok(BatchOutcome { replies: replies.collect(), commit })
        });
        if outcome.is_err() {
            self.away.failed(now);
            self.write_set = WriteSet::default();
            self.stale = true;
            // Preferably now, while the store may still be readable; otherwise before the next batch.
            if let Err(error) = self.reload()
                && error.is_fatal()
            {
                return Err(error);
            }
        }
        outcome
    }

    /// Loads what a batch needs, and executes it in memory.
    fn execute(&mut self, batch: Vec<Command>, now: Timestamp, continues: bool) -> Result<Answers, Error> {
        self.begin();
        let load = self.collect(&batch, now);
        let pages = self.fetch(&load)?;
        self.fetch_linked(&load, &pages.ready, &batch)?;
        let mut answers = Vec::with_capacity(batch.len());
        for command in batch {
            answers.push(self.command(command, now)?);
            self.follow_up(now)?;
        }
        self.release_steps(now)?;
        if continues {
            self.continue_follow_ups(now)?;
            self.release_steps(now)?;
        }
        // Last: any follow-up may end a task of a thread.
        self.settle_threads(now)?;
        if !self.dry {
            self.complete_assignments()?;
            self.find_quarantined()?;
        }
        Ok(answers)
    }

    /// Begins a batch on an empty write set.
    fn begin(&mut self) {
        self.write_set.revision = self.memory.revision;
        self.begin_follow_ups();
        if !self.dry {
            self.write_set.undecodable.extend(self.memory.unreported.iter().cloned());
            self.lift_damaged();
        }
    }

    fn command(&mut self, command: Command, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        match command {
            Command::Create(create) => self.create(*create, now),
            Command::Task { namespace, id, command } => self.one(&(namespace, id), command, now),
            Command::Claim(claim) => self.claim(claim, now),
            Command::Tick(tick) => self.tick(&tick, now),
            Command::ClockJumped { by } => Ok(Ok(self.clock_jumped(by, now))),
            Command::OpenSession(open) => self.open_session(open, now),
            Command::EndSession(end) => self.end_session(end, now),
            Command::DrainWorker { namespace, worker, instance } => {
                Ok(Ok(self.drain_worker((namespace, worker), &instance)))
            }
            Command::PutAgent(put) => Ok(self.put_agent(put, now)),
            Command::DeleteAgent { namespace, name } => Ok(self.delete_agent(namespace, name, now)),
            Command::EndCoolDown { namespace, credential, how } => {
                Ok(Ok(self.end_cool_down(&(namespace, credential), &how, now)))
            }
            Command::HoldAgents(held) => {
                self.held.update(held, now);
                Ok(Ok(Reply::Deleted.into()))
            }
            Command::CorrectAccount { namespace, scope, today, this_month } => {
                Ok(Ok(self.correct_account((namespace, scope), [today, this_month], now)))
            }
            Command::PutBudget { namespace, budget, expected } => {
                Ok(self.put_budget(namespace, budget, expected, now))
            }
            Command::Prune(prune) => self.prune(prune, now),
            Command::Workflow(command) => self.workflow_command(*command, now),
            Command::PutDocument(put) => self.put_document(put, now),
            Command::DeleteDocument(key, expected) => self.delete_document(key, expected),
            Command::Reseal(secrets) => self.reseal(secrets),
            Command::RemoveTask(id) => self.remove_task(&id),
        }
    }

    fn one(
        &mut self,
        id: &ScopedId,
        command: task::Command,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let Some(key) = self.find(id)? else { return Ok(Err(self.absent(id))) };
        Ok(self.apply(key, command, now)?.map(|reply| Answer::Task(key, reply)))
    }

    fn tick(&mut self, tick: &Tick, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        let by = tick.by(now);
        let mut due = self.due_on_workers(by, tick);
        due.extend(self.write_set.due.take().unwrap_or_default());
        due.truncate(tick.limit);
        let mut count = due.len();
        let removable = self.removable(&due)?;
        for key in due {
            if self.load(key)?.is_some_and(|task| task.state.is_final()) {
                // The others stay due: the next tick removes them.
                if removable.contains(&key) {
                    self.expire(key, now);
                }
                continue;
            }
            // The agent may have raised a limit by which the task would fail, and not reached it yet.
            let agent = self
                .load(key)?
                .filter(|task| task.state == State::Queued)
                .and_then(|task| Some((task.namespace.clone(), task.agent()?.clone())));
            if let Some(agent) = agent {
                self.match_agent(key, &agent);
                self.follow_up(now)?;
            }
            // It may have waited for its own credential since, and no claim has reached it.
            if self.cools_down(key, now)? {
                continue;
            }
            let away = self.waited_in_vain(key, now)?;
            // Another command of the batch may have ended it.
            let _ = self.apply(key, task::Command::Tick { by, away }, now)?;
        }
        self.offer_unused_room(now);
        count += self.tick_workflows(by, now)?;
        Ok(Ok(Reply::Ticked(count).into()))
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        // Zero means "none" in trace ids.
        if bytes == [0; N] { [1; N] } else { bytes }
    }

    /// Loads the state that is kept in memory after a failed batch, if that has reached the database after all: memory
    /// changes only after a write.
    fn reload(&mut self) -> Result<(), Error> {
        self.write_set = WriteSet::default();
        if self.backend.stored_revision()? == self.memory.revision {
            self.stale = false;
            return Ok(());
        }
        let snapshot = self.backend.snapshot()?;
        self.replace_memory(snapshot);
        Ok(())
    }

    fn replace_memory(&mut self, snapshot: Snapshot) {
        self.note_undecodable(&snapshot);
        self.damage.load(&snapshot);
        self.memory = Memory::load(snapshot, self.memory.accept_from);
        self.set_aside();
        self.write_set = WriteSet::default();
        self.stale = false;
    }
}

type Answers = Vec<Result<Answer, Refused>>;
/// An attempt that a Hello named: its id and fence, and if it continues, its task and last stored `attempt_seq`.
type NamedAttempt = (TaskId, Fence, Option<(TaskKey, u64)>);

/// Reply whose record is not final yet: replies carry the record as the whole batch leaves it, which is what becomes
/// durable.
#[derive(Debug)]
enum Answer {
    Created(TaskKey),
    Existing(TaskKey),
    Task(TaskKey, task::Reply),
    Session(Epoch, Vec<NamedAttempt>),
    Driven(Vec<TaskKey>),
    Reply(Reply),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl Answer {
    fn into_reply(self, records: &KeyMap<Arc<Task>>) -> Reply {
        // `execute` has loaded every task that a command touched.
        let record = |key: TaskKey| records.get(&key).cloned();
        let reply = match self {
            Self::Created(key) => record(key).map(Reply::Created),
            Self::Existing(key) => record(key).map(Reply::Existing),
            Self::Task(key, reply) => record(key).map(|task| Reply::Task(task, reply)),
            Self::Session(epoch, attempts) => {
                let resumed = attempts.into_iter().map(|(id, fence, live)| Resumed {
                    id,
                    fence,
                    live: live.and_then(|(key, seq)| Some((record(key)?, seq))),
                });
                Some(Reply::Session(epoch, resumed.collect()))
            }
            Self::Driven(tasks) => Some(Reply::Driven(tasks.into_iter().filter_map(record).collect())),
            Self::Reply(reply) => Some(reply),
        };
        reply.unwrap_or(Reply::Deleted)
    }
}
