//! The way from the server to its store: writes whose outcome health observes, and replies turned into the type that the
//! command promises. Knows no rules; must not interpret records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rota_core::agent::Agent;
use rota_core::rank::Priority;
use rota_core::spending::{self, Account};
use rota_core::task::{self, Event, Task};
use rota_core::{Epoch, Namespace, TaskId, Timestamp};
use rota_store::single_writer::Clock;
use rota_store::{
    AccountKey, Budget, Claim, Command, CoolDownEnd, CredentialKey, EndSession, Error, OpenSession, Prune,
    PutAgent, Refused, Reply, Resumed, Store, StoreSpace, Tick,
};
use tokio::time::Instant;
use tonic::Status;

use crate::indexer::IndexState;
use crate::keys::{AgentKey, WorkerKey};
use crate::metrics::Refusal;
use crate::options::WorkLimits;
use crate::overload::Overload;
use crate::room::{self, Room};
use crate::wire::names::TaskName;
use crate::wire::status;
use crate::write_health::WriteHealth;

/// Page of a log: what one read returns, and what one message of a watch contains at most, but for one large entry.
pub(crate) const LOG_PAGE: Budget = Budget { entries: 500, bytes: 256 << 10 };

/// Answer of the store to a batch.
pub(crate) type Replies = Result<Vec<Result<Reply, Refused>>, Error>;

/// Client of the store. Clones share the write health.
#[derive(Clone)]
pub(crate) struct StoreClient {
    store: Arc<dyn Store>,
    clock: Clock,
    write_health: Arc<WriteHealth>,
    room: Arc<Mutex<Room>>,
    overload: Arc<Overload>,
    index: Arc<IndexState>,
}

/// Takes from a reply what its command promises.
macro_rules! expect_reply {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply {
            $pattern => Ok($value),
            _ => Err(unexpected_reply()),
        }
    };
}

/// The store answered a command with a reply of another kind.
pub(crate) fn unexpected_reply() -> Status {
    Status::internal("unexpected reply from the store")
}

/// The store answered a batch with fewer replies than commands.
pub(crate) fn no_reply() -> Status {
    Status::internal("missing reply from the store")
}

fn single(replies: Replies) -> Result<Reply, Status> {
    let reply = replies.map_err(status::store)?.into_iter().next();
    reply.ok_or_else(no_reply)?.map_err(status::refused)
}

impl StoreClient {
    /// Creates a client that counts failed writes, and accepts any number of tasks. `clock` is the one by which the store sets
    /// deadlines.
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, failures: Counter) -> Self {
        let write_health = WriteHealth::new(failures);
        let (room, overload, index) = (Arc::default(), Arc::default(), Arc::default());
        Self { store, clock, write_health: Arc::new(write_health), room, overload, index }
    }

    /// Returns the same with limits of the work that is accepted.
    pub(crate) fn with_limits(self, limits: WorkLimits, refused: Family<Refusal, Counter>) -> Self {
        Self { overload: Arc::new(Overload::new(limits, refused)), ..self }
    }

    /// Returns the time of the store, by which its records age: a database's may differ from this machine's.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Returns how much work there is, and its limits.
    pub(crate) fn overload(&self) -> &Overload {
        &self.overload
    }

    /// Returns the refusal of new work of a namespace, if its records, or the work, have no room.
    pub(crate) fn refusal(&self, namespace: &Namespace, priority: Priority) -> Option<Status> {
        room::refusal(self.space(), priority).or_else(|| self.overload.refusal(namespace, priority))
    }

    pub(crate) fn write_health(&self) -> &WriteHealth {
        &self.write_health
    }

    /// Returns the store itself, for reads and for closing it.
    pub(crate) fn reads(&self) -> &dyn Store {
        &*self.store
    }

    /// Returns how far the full-text index is.
    pub(crate) fn index(&self) -> &IndexState {
        &self.index
    }

    /// Measures the room of the store.
    pub(crate) async fn measure_space(&self) -> Result<(), Error> {
        self.store.space().await.map(|space| self.measured(space))
    }

    /// Sets the room of the store.
    pub(crate) fn measured(&self, space: Option<StoreSpace>) {
        let had_room = self.has_room_for_index();
        self.room.lock().measured(space, Instant::now());
        if !had_room && self.has_room_for_index() {
            self.index.wake();
        }
    }

    /// Returns the room of the store when it was last measured; `None` if it has no files.
    pub(crate) fn space(&self) -> Option<StoreSpace> {
        self.room.lock().space()
    }

    /// Whether the full-text index, whose file is not the database's, may grow.
    pub(crate) fn has_room_for_index(&self) -> bool {
        self.space().is_none_or(|space| space.has_room_for_others(0))
    }

    /// Whether reports are left out of logs: what is left of a volume that stays nearly full is kept for results.
    pub(crate) fn keeps_room_for_results(&self) -> bool {
        self.room.lock().is_kept_for_results(Instant::now())
    }

    /// Commits a batch; each command is answered by itself.
    pub(crate) async fn apply(&self, batch: Vec<Command>) -> Replies {
        let replies = self.store.apply(batch).await;
        self.write_health.observe(&replies);
        replies
    }

    /// Commits a batch that may wait a moment for others to share its transaction.
    pub(crate) async fn apply_lazily(&self, batch: Vec<Command>) -> Replies {
        let replies = self.store.apply_lazily(batch).await;
        self.write_health.observe(&replies);
        replies
    }

    /// Answers a batch as [`apply`](Self::apply) would if nothing followed from earlier batches, and changes nothing (dry run).
    pub(crate) async fn dry_run(&self, batch: Vec<Command>) -> Replies {
        self.store.dry_run(batch).await
    }

    async fn one(&self, command: Command) -> Result<Reply, Status> {
        single(self.apply(vec![command]).await)
    }

    /// Commits one command, or only dry-runs it.
    async fn one_or_dry_run(&self, command: Command, dry_run: bool) -> Result<Reply, Status> {
        if dry_run { single(self.dry_run(vec![command]).await) } else { self.one(command).await }
    }

    /// Applies a command to a task.
    pub(crate) async fn command(
        &self,
        namespace: Namespace,
        id: TaskId,
        command: task::Command,
        dry_run: bool,
    ) -> Result<(Arc<Task>, task::Reply), Status> {
        let command = Command::Task { namespace, id, command };
        expect_reply!(self.one_or_dry_run(command, dry_run).await?, Reply::Task(task, reply) => (task, reply))
    }

    pub(crate) async fn put_agent(&self, put: PutAgent, dry_run: bool) -> Result<Arc<Agent>, Status> {
        let reply = self.one_or_dry_run(Command::PutAgent(put), dry_run).await?;
        expect_reply!(reply, Reply::Agent(agent) => agent)
    }

    pub(crate) async fn put_budget(
        &self,
        namespace: Namespace,
        budget: spending::Budget,
        expected: Option<spending::Budget>,
    ) -> Result<Arc<Account>, Status> {
        let reply = self.one(Command::PutBudget { namespace, budget, expected }).await?;
        expect_reply!(reply, Reply::Account(account) => account)
    }

    /// Replaces what an agent or a namespace has spent today and this month.
    pub(crate) async fn correct_account(
        &self,
        (namespace, scope): AccountKey,
        [today, this_month]: [Option<i64>; 2],
    ) -> Result<Arc<Account>, Status> {
        let reply = self.one(Command::CorrectAccount { namespace, scope, today, this_month }).await?;
        expect_reply!(reply, Reply::Account(account) => account)
    }

    pub(crate) async fn delete_agent(&self, key: &AgentKey) -> Result<(), Status> {
        let command = Command::DeleteAgent { namespace: key.0.clone(), name: key.1.clone() };
        self.one(command).await.map(drop)
    }

    /// Opens a worker's session. Returns its epoch, and what becomes of each attempt that the worker still has.
    pub(crate) async fn open_session(&self, open: OpenSession) -> Result<(Epoch, Vec<Resumed>), Status> {
        let reply = self.one(Command::OpenSession(open)).await?;
        expect_reply!(reply, Reply::Session(epoch, resumed) => (epoch, resumed))
    }

    /// Ends a worker's session. Returns how many tasks it had; none if the worker has a newer session, in which its
    /// attempts continue.
    pub(crate) async fn end_session(&self, end: EndSession) -> Result<usize, Status> {
        let replies = self.apply(vec![Command::EndSession(end)]).await.map_err(status::store)?;
        match replies.into_iter().next() {
            Some(Ok(Reply::Ended(freed))) => Ok(freed),
            _ => Ok(0),
        }
    }

    /// Marks processes of workers as draining.
    pub(crate) async fn drain_workers(&self, drained: Vec<(WorkerKey, String)>) -> Result<(), Status> {
        let drain = |((namespace, worker), instance)| Command::DrainWorker { namespace, worker, instance };
        self.apply(drained.into_iter().map(drain).collect()).await.map_err(status::store)?;
        Ok(())
    }

    /// Assigns ready tasks to a worker. Returns how many, or `None` if all are left to others; refused if the worker's session
    /// is over.
    pub(crate) async fn claim(&self, claim: Claim) -> Result<Result<Option<usize>, Refused>, Error> {
        let reply = self.apply(vec![Command::Claim(claim)]).await?.into_iter().next();
        Ok(match reply {
            Some(Ok(Reply::Claimed(assigned))) => Ok(Some(assigned)),
            Some(Ok(Reply::PassedOver)) => Ok(None),
            Some(Err(refused)) => Err(refused),
            _ => Ok(Some(0)),
        })
    }

    /// Lets tasks that were due at a time look at the clock. Returns how many were.
    pub(crate) async fn tick(&self, tick: Tick) -> Result<usize, Status> {
        expect_reply!(self.one(Command::Tick(tick)).await?, Reply::Ticked(count) => count)
    }

    /// Moves the deadlines of attempts after the clock jumped forward by more than the time that passed.
    pub(crate) async fn clock_jumped(&self, by: Duration) -> Result<usize, Status> {
        expect_reply!(self.one(Command::ClockJumped { by }).await?, Reply::Ticked(count) => count)
    }

    /// Ends cool-downs of credentials, each in its way; those that are unknown are left out.
    pub(crate) async fn end_cool_downs(&self, over: Vec<(CredentialKey, CoolDownEnd)>) -> Result<(), Status> {
        let end = |((namespace, credential), how)| Command::EndCoolDown { namespace, credential, how };
        self.apply(over.into_iter().map(end).collect()).await.map_err(status::store)?;
        Ok(())
    }

    /// Names the agents that wait for their credentials, and since when they do.
    pub(crate) async fn hold_agents(&self, held: BTreeMap<AgentKey, Timestamp>) -> Result<(), Status> {
        self.one(Command::HoldAgents(held)).await.map(|_| ())
    }

    /// Removes some expired records. Returns how many, and whether there may be more.
    pub(crate) async fn prune(&self, prune: Prune) -> Result<(usize, bool), Status> {
        let reply = self.one(Command::Prune(prune)).await?;
        let (count, more) = expect_reply!(reply, Reply::Pruned { count, more } => (count, more))?;
        if count > 0 {
            self.index.removed();
        }
        Ok((count, more))
    }

    async fn newest(&self, namespace: &Namespace, alias: String) -> Result<Task, Status> {
        let found = self.store.newest((namespace.clone(), alias.clone())).await.map_err(status::store)?;
        found.ok_or_else(|| {
            let message = format!("task {alias:?} does not exist in namespace {namespace}");
            status::error("TASK_NOT_FOUND", message)
        })
    }

    /// Returns a task of a namespace.
    pub(crate) async fn task(&self, namespace: &Namespace, name: TaskName) -> Result<Task, Status> {
        match name {
            TaskName::Id(id) => {
                let task = self.record(namespace, id).await?;
                task.ok_or_else(|| status::refused(Refused::NoTask(id)))
            }
            TaskName::Alias(alias) => self.newest(namespace, alias).await,
        }
    }

    /// Returns the record of a task, if there is one.
    pub(crate) async fn record(&self, namespace: &Namespace, id: TaskId) -> Result<Option<Task>, Status> {
        self.store.task((namespace.clone(), id)).await.map_err(status::store)
    }

    /// Returns the spec with which a task was created, encoded.
    pub(crate) async fn payload(&self, task: &Task) -> Result<Option<Bytes>, Status> {
        self.store.payload(task.key).await.map_err(status::store)
    }

    /// Returns the result of a task, encoded; nothing if it has none.
    pub(crate) async fn result(&self, task: &Task) -> Result<Option<Bytes>, Status> {
        if !task.has_result {
            return Ok(None);
        }
        self.store.result(task.key).await.map_err(status::store)
    }

    /// Returns entries of a task's log after a position.
    pub(crate) async fn events(&self, task: &Task, after: u64, budget: Budget) -> Result<Vec<Event>, Status> {
        self.store.events(task.key, after, budget).await.map_err(status::store)
    }
}
