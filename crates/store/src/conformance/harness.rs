//! Test harness of a store: shorthands for commands, a manual clock, and every published commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::{Route, Target};
use rota_core::task::{
    self, AttemptRef, Completion, Dependency, DependencyKey, DependencyState, Desired, Event, Limits, Loss,
    OnFailure, State, Task, WorkerRef,
};
use rota_core::{AgentName, Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::single_writer::Clock;
use crate::{
    Budget, Claim, Command, Commit, Create, EndSession, OpenSession, Prune, PutAgent, Refused, Reply,
    Resumed, Store, TaskChange,
};

type Start = Box<dyn Fn(Clock) -> Arc<dyn Store>>;

pub struct Harness {
    start: Start,
    pub store: Arc<dyn Store>,
    inbox: mpsc::Receiver<Commit>,
    /// Commits since the store was opened.
    pub commits: Vec<Commit>,
    pub(super) clock: Arc<AtomicI64>,
    made: u128,
}

impl std::fmt::Debug for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness").field("commits", &self.commits).finish_non_exhaustive()
    }
}

/// Runs one case on its own store.
pub fn drive(start: impl Fn(Clock) -> Arc<dyn Store> + 'static, case: impl AsyncFnOnce(&mut Harness)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut harness = Harness::new(Box::new(start));
        case(&mut harness).await;
        harness.store.close().await;
    });
}

impl Harness {
    fn new(start: Start) -> Self {
        let clock = Arc::new(AtomicI64::new(1_750_000_000_000_000));
        let (store, inbox) = open(&start, &clock);
        Self { start, store, inbox, commits: Vec::new(), clock, made: 0 }
    }

    /// Reopens the store on the same data.
    pub async fn reopen(&mut self) {
        self.stopped(Duration::ZERO).await;
    }

    /// Closes the store, and reopens it later.
    pub async fn stopped(&mut self, duration: Duration) {
        self.store.close().await;
        self.later(duration);
        (self.store, self.inbox) = open(&self.start, &self.clock);
        self.commits.clear();
    }

    /// Reopens the store without a reader of its commits.
    pub async fn without_reader(&mut self) {
        self.store.close().await;
        let clock = Arc::clone(&self.clock);
        self.store = (self.start)(Arc::new(move || Timestamp(clock.load(Ordering::Relaxed))));
        self.commits.clear();
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::Relaxed))
    }

    pub fn later(&self, duration: Duration) -> Timestamp {
        self.clock.fetch_add(i64::try_from(duration.as_micros()).unwrap(), Ordering::Relaxed);
        self.now()
    }

    /// Executes a batch, and receives the commits so far.
    pub async fn batch(&mut self, batch: Vec<Command>) -> Vec<Result<Reply, Refused>> {
        let replies = self.store.apply(batch).await.unwrap();
        while let Ok(commit) = self.inbox.try_recv() {
            self.commits.push(commit);
        }
        replies
    }

    /// Waits for a commit that no batch of this harness has received.
    pub async fn next_commit(&mut self) -> Commit {
        let next = tokio::time::timeout(Duration::from_secs(30), self.inbox.recv());
        next.await.expect("no commit").expect("the store has ended")
    }

    pub async fn one(&mut self, command: Command) -> Result<Reply, Refused> {
        let mut replies = self.batch(vec![command]).await;
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    pub fn id(&mut self) -> TaskId {
        self.made += 1;
        // UUIDs of version 7, a millisecond apart.
        TaskId(Uuid::from_u128(((0x0197_0000_0000 + self.made) << 80) | 0x7000_8000_0000_0000_0000))
    }

    /// Returns a task for agent `a` in namespace `n`.
    pub fn task(&mut self) -> Create {
        let id = self.id();
        let plain = Task::new(id, namespace("n"), to_agent("a"));
        let task = Task { title: "a task".to_owned(), owner: "me".to_owned(), ..plain };
        let payload = Bytes::from(format!("do {id}"));
        Create {
            task,
            payload,
            secrets: None,
            given: Default::default(),
            key: None,
            foreign_id: true,
            strict: false,
            offer: None,
        }
    }

    /// Returns a task with dependencies.
    pub fn after(&mut self, dependencies: Vec<Dependency>) -> Create {
        let mut create = self.task();
        create.task.dependencies = dependencies;
        create
    }

    pub async fn create(&mut self, create: Create) -> Arc<Task> {
        match self.one(Command::Create(Box::new(create))).await {
            Ok(Reply::Created(task)) => task,
            other => panic!("not created: {other:?}"),
        }
    }

    pub async fn plain(&mut self) -> Arc<Task> {
        let create = self.task();
        self.create(create).await
    }

    pub async fn agent(&mut self, name: &str) -> Arc<Agent> {
        match self.one(put_agent(name, "v1", None)).await {
            Ok(Reply::Agent(agent)) => agent,
            other => panic!("no agent: {other:?}"),
        }
    }

    /// Opens the first session of a worker of agent `a`.
    pub async fn hello(&mut self, worker: &str) -> WorkerRef {
        self.hello_again(worker, "process 1", Vec::new()).await.0
    }

    pub async fn hello_again(
        &mut self,
        worker: &str,
        instance: &str,
        running: Vec<(TaskId, Fence)>,
    ) -> (WorkerRef, Vec<Resumed>) {
        match self.one(open_session(worker, instance, running)).await {
            Ok(Reply::Session(epoch, resumed)) => {
                (WorkerRef { worker: WorkerName::new(worker).unwrap(), epoch }, resumed)
            }
            other => panic!("no session: {other:?}"),
        }
    }

    pub async fn route(&self, target: Target) -> RouteId {
        let wanted = Route { namespace: namespace("n"), target };
        let snapshot = self.store.snapshot().await.unwrap();
        snapshot.routes.into_iter().find(|(_, route)| *route == wanted).unwrap().0
    }

    /// Claims tasks of agent `a`, and returns the assigned ones in order of the commit.
    pub async fn claim(&mut self, by: &WorkerRef, slots: usize) -> Vec<Arc<Task>> {
        let routes = vec![self.route(to_agent("a")).await];
        self.claim_from(by, routes, slots).await
    }

    pub async fn claim_from(&mut self, by: &WorkerRef, routes: Vec<RouteId>, slots: usize) -> Vec<Arc<Task>> {
        let before = self.commits.len();
        let (namespace, worker, shared, not_isolating) = (namespace("n"), by.clone(), vec![], Arc::default());
        let claim = Claim { namespace, worker, routes, shared, slots, probes: None, not_isolating };
        let count = match self.one(Command::Claim(claim)).await {
            Ok(Reply::Claimed(count)) => count,
            other => panic!("no claim: {other:?}"),
        };
        let changes = self.commits[before..].iter().flat_map(|commit| &commit.tasks);
        let given: Vec<_> =
            changes.filter(|change| change.dispatch.is_some()).map(|change| change.task.clone()).collect();
        assert_eq!(given.len(), count);
        given
    }

    /// Applies a command to a task in namespace `n`.
    pub async fn ask(&mut self, id: TaskId, command: task::Command) -> Result<task::Reply, Refused> {
        match self.one(ask(id, command)).await {
            Ok(Reply::Task(task, reply)) => {
                assert_eq!(*task, self.read(id).await);
                Ok(reply)
            }
            Ok(other) => panic!("not the answer: {other:?}"),
            Err(refused) => Err(refused),
        }
    }

    pub async fn finish(&mut self, task: &Task, completion: Completion) -> Result<task::Reply, Refused> {
        self.ask(task.id, finish(attempt_of(task), completion)).await
    }

    pub async fn succeed(&mut self, task: &Task) {
        let done = self.finish(task, Completion::Succeeded(None)).await;
        assert_eq!(done, Ok(task::Reply::Done));
    }

    pub async fn cancel(&mut self, id: TaskId) {
        let done = self.ask(id, want(Desired::Cancelled)).await;
        assert_eq!(done, Ok(task::Reply::Done));
    }

    pub async fn tick(&mut self) -> usize {
        match self.one(Command::tick(1000)).await {
            Ok(Reply::Ticked(count)) => count,
            other => panic!("no tick: {other:?}"),
        }
    }

    pub async fn prune(&mut self, before: Timestamp, limit: usize) -> usize {
        let prune = Prune { ended_before: Some(before), left_before: before, limit };
        match self.one(Command::Prune(prune)).await {
            Ok(Reply::Pruned { count, .. }) => count,
            other => panic!("no pruning: {other:?}"),
        }
    }

    /// Returns a task of namespace `n`, if there is one.
    pub async fn find(&self, id: TaskId) -> Option<Task> {
        self.store.task((namespace("n"), id)).await.unwrap()
    }

    pub async fn read(&self, id: TaskId) -> Task {
        self.find(id).await.unwrap()
    }

    pub async fn payload(&self, id: TaskId) -> Option<Bytes> {
        self.store.payload(self.find(id).await?.key).await.unwrap()
    }

    pub async fn result(&self, id: TaskId) -> Option<Bytes> {
        self.store.result(self.find(id).await?.key).await.unwrap()
    }

    pub async fn newest(&self, within: &str, alias: &str) -> Option<TaskId> {
        let found = self.store.newest((namespace(within), alias.to_owned())).await.unwrap();
        found.map(|task| task.id)
    }

    pub async fn state(&self, id: TaskId) -> State {
        self.read(id).await.state
    }

    pub async fn log(&self, id: TaskId) -> Vec<Event> {
        let Some(task) = self.find(id).await else { return Vec::new() };
        self.store.events(task.key, 0, Budget::UNLIMITED).await.unwrap()
    }

    /// Returns the reasons of all state changes of a task.
    pub async fn steps(&self, id: TaskId) -> Vec<String> {
        let log = self.log(id).await;
        let numbers: Vec<_> = log.iter().map(|event| event.log_seq).collect();
        assert_eq!(numbers, (1..=log.len() as u64).collect::<Vec<_>>(), "the log has no gaps");
        let steps = log.into_iter().filter_map(|event| match event.body {
            task::Body::State(change) => Some(change.reason.into_owned()),
            _ => None,
        });
        steps.collect()
    }

    /// Returns the last commit's change of a task.
    pub fn last_change(&self, id: TaskId) -> TaskChange {
        let last = self.commits.last().unwrap();
        last.tasks.iter().find(|change| change.task.id == id).unwrap().clone()
    }
}

fn open(start: &Start, clock: &Arc<AtomicI64>) -> (Arc<dyn Store>, mpsc::Receiver<Commit>) {
    let clock = Arc::clone(clock);
    let store = start(Arc::new(move || Timestamp(clock.load(Ordering::Relaxed))));
    let inbox = store.commits().unwrap();
    (store, inbox)
}

pub(super) fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

pub(super) fn to_agent(name: &str) -> Target {
    Target::Agent(AgentName::new(name).unwrap())
}

pub(super) fn make(create: Create) -> Command {
    Command::Create(Box::new(create))
}

pub(super) fn put_agent(name: &str, payload: &'static str, must_exist: Option<bool>) -> Command {
    let agent = Agent {
        namespace: namespace("n"),
        name: AgentName::new(name).unwrap(),
        generation: 0,
        capabilities: ["code".to_owned()].into(),
        defaults: Limits::default(),
        budget: Default::default(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        payload: Bytes::from_static(payload.as_bytes()),
    };
    Command::PutAgent(PutAgent { agent, must_exist })
}

/// Returns a creation of agent `a` with limits for its tasks.
pub(super) fn put_bounds(defaults: Limits) -> Command {
    let Command::PutAgent(mut put) = put_agent("a", "v1", None) else { unreachable!() };
    put.agent.defaults = defaults;
    Command::PutAgent(put)
}

pub(super) fn delete_agent(name: &str) -> Command {
    Command::DeleteAgent { namespace: namespace("n"), name: AgentName::new(name).unwrap() }
}

pub(super) fn open_session(worker: &str, instance: &str, running: Vec<(TaskId, Fence)>) -> Command {
    Command::OpenSession(OpenSession {
        namespace: namespace("n"),
        worker: WorkerName::new(worker).unwrap(),
        agent: AgentName::new("a").unwrap(),
        instance: instance.to_owned(),
        replica: "replica".to_owned(),
        running,
        last: None,
        takes_name: true,
    })
}

pub(super) fn end_session(session: &WorkerRef) -> Command {
    Command::EndSession(EndSession {
        namespace: namespace("n"),
        session: session.clone(),
        loss: Loss::Died,
        seen: None,
        message: "disconnected".to_owned(),
    })
}

pub(super) fn session(worker: &str, epoch: u64) -> WorkerRef {
    WorkerRef { worker: WorkerName::new(worker).unwrap(), epoch: Epoch(epoch) }
}

pub(super) fn ask(id: TaskId, command: task::Command) -> Command {
    Command::Task { namespace: namespace("n"), id, command }
}

/// Returns the attempt of an assigned task as its worker reports it.
pub(super) fn attempt_of(task: &Task) -> AttemptRef {
    let assignment = task.assignment.as_ref().unwrap();
    AttemptRef {
        by: WorkerRef { worker: assignment.worker.clone(), epoch: assignment.epoch },
        fence: task.fence,
    }
}

pub(super) fn finish(attempt: AttemptRef, completion: Completion) -> task::Command {
    task::Command::Finish { attempt, last: 0, completion, usage: None, session: String::new(), jitter: 0.5 }
}

pub(super) fn want(desired: Desired) -> task::Command {
    task::Command::Update { priority: None, labels: None, desired: Some(desired), reason: String::new() }
}

pub(super) fn on(id: TaskId) -> Dependency {
    depend(DependencyKey::Id(id), OnFailure::Fail)
}

pub(super) fn on_alias(alias: &str) -> Dependency {
    depend(DependencyKey::Alias(alias.to_owned()), OnFailure::Fail)
}

pub(super) fn depend(key: DependencyKey, on_failure: OnFailure) -> Dependency {
    Dependency { key, on_failure, state: DependencyState::Missing, of_thread: false }
}
