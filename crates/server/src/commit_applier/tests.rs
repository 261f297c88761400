//! Order in which a commit is applied, on commits made by hand.

use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prost::Message;
use rota_core::agent::Agent;
use rota_core::breaker::{Policy, State as BreakerState};
use rota_core::failure::{Class, Failure};
use rota_core::spending::{Account, Budget, Scope};
use rota_core::target::{Route, Target};
use rota_core::task::{self, AttemptOutcome, Body, Command, EndedAttempt, Event, Limits, State, Task};
use rota_core::{AgentName, Epoch, Namespace, RouteId, TaskId, WorkerName};
use rota_proto::v1;
use rota_proto::worker::v1::{SessionResponse, session_response::Kind};
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::SingleWriterStore;
use rota_store::{AccountChange, AttemptEnded, Dispatch, TaskChange};
use rota_telemetry::BackgroundTasks;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::artifacts::Artifacts;
use crate::demand::Demand;
use crate::keys::WorkerKey;
use crate::options::PoolKind;
use crate::scheduler::{Reservation, SessionHandle};
use crate::seal;
use crate::watchers::Topic;
use crate::wire::agent::named;

const ROUTE: RouteId = RouteId(1);

fn agent_key() -> AgentKey {
    (Namespace::new("n").unwrap(), AgentName::new("a").unwrap())
}

fn worker_key() -> WorkerKey {
    (agent_key().0, WorkerName::new("w").unwrap())
}

fn worker_ref() -> WorkerRef {
    WorkerRef { worker: worker_key().1, epoch: Epoch(1) }
}

fn route() -> Route {
    let (namespace, agent) = agent_key();
    Route { namespace, target: Target::Agent(agent) }
}

/// Returns the agent with one environment variable.
fn agent(value: &str) -> Agent {
    let (namespace, name) = agent_key();
    let environment = [("VARIABLE".to_owned(), value.to_owned())].into();
    let spec = v1::AgentSpec { environment, ..v1::AgentSpec::default() };
    let stored = v1::Agent { spec: Some(spec), ..v1::Agent::default() };
    Agent { payload: stored.encode_to_vec().into(), ..named(namespace, name) }
}

fn agent_change(value: &str) -> AgentChange {
    AgentChange { agent: Arc::new(agent(value)), deleted: false }
}

/// Returns an applier, and the messages to the one worker, which has one free slot.
fn applier() -> (CommitApplier, mpsc::Receiver<Box<SessionResponse>>) {
    let memory = InMemoryStore::default();
    let engine = Engine::new(memory.clone(), 0).unwrap();
    let store = SingleWriterStore::start(engine, memory, Arc::new(now)).unwrap();
    let store = StoreClient::new(Arc::new(store), Arc::new(now), Counter::default());
    let background_tasks = BackgroundTasks::default();
    let metrics = Arc::new(Metrics::new(&background_tasks));
    let agents = Arc::new(AgentRegistry::default());
    let scheduler = Arc::new(Scheduler::new(metrics.slot_mismatches()));
    let policy = Policy { failures: 1, cooldown: Duration::from_secs(60) };
    let breakers = Arc::new(Breakers::new(policy, &scheduler, &agents, Arc::new(now)));
    let demand = Demand::new(&scheduler, &agents, &breakers, PoolKind::Pods);
    let folder = tempfile::tempdir().unwrap();
    let parts = rota_artifacts::Parts::in_folder(&folder.path().join("artifacts")).unwrap();
    let artifacts = Artifacts::new(parts, store.clone(), 0);
    let health = Health::new(
        store.clone(),
        background_tasks,
        demand.clone(),
        Arc::default(),
        artifacts.clone(),
        Arc::default(),
        None,
        CancellationToken::new(),
    );
    let health = Arc::new(health);
    let dispatcher = Dispatcher {
        store: store.clone(),
        artifacts,
        scheduler: Arc::clone(&scheduler),
        agents: Arc::clone(&agents),
        sealer: Arc::new(seal::of_file(&folder.path().join("key"))),
        result_schemas: Arc::default(),
        heartbeat_timeout: Duration::from_secs(1),
    };
    scheduler.restore(vec![(ROUTE, route())], Vec::new());
    let inbox = register_worker(&scheduler);
    let applier = CommitApplier {
        schedules: Arc::default(),
        token_registry: Arc::default(),
        browser_sessions: Arc::default(),
        notifier: Arc::default(),
        successes: Default::default(),
        ready_steps: Arc::default(),
        alerts: Arc::new(Alerts::new(Arc::clone(&health), demand)),
        health,
        metrics,
        breakers,
        scheduler,
        agents,
        dispatcher: Arc::new(dispatcher),
        attention: Arc::default(),
        approvals: Arc::default(),
        watchers: Arc::new(Watchers::default()),
        store,
        restored: None,
        timer: watch::channel(None).0,
    };
    (applier, inbox)
}

fn register_worker(scheduler: &Scheduler) -> mpsc::Receiver<Box<SessionResponse>> {
    let ((namespace, worker), agent) = (worker_key(), agent_key().1);
    let profile = Profile { namespace, worker, agent, capabilities: Arc::default(), task: None };
    let (messages, inbox) = mpsc::channel(4);
    let mut entry = WorkerEntry::new(profile, worker_ref().epoch, "instance".to_owned(), now());
    entry.session = Some(SessionHandle { messages, closed: CancellationToken::new() });
    entry.slot_count = 1;
    assert!(scheduler.register(entry).is_ok());
    inbox
}

/// Returns a task that is assigned to the worker.
fn assigned_task() -> Task {
    let (namespace, agent) = agent_key();
    let new = Task::new(TaskId(Uuid::from_u128(1)), namespace, Target::Agent(agent.clone()));
    let (mut task, _) = task::create(Task { agent_known: true, ..new }, now());
    let command = Command::Assign {
        to: worker_ref(),
        agent,
        span_id: [1; 8],
        defaults: Limits::default(),
        reserved: 0,
    };
    task.apply(command, now()).unwrap();
    task
}

fn change(task: Task, dispatch: Option<Dispatch>) -> TaskChange {
    TaskChange {
        task: Arc::new(task),
        route: ROUTE,
        before: None,
        events: Arc::new([]),
        revision: 0,
        dispatch: dispatch.map(Arc::new),
        identified: false,
    }
}

/// Reserves the worker's slot, and returns the commit that creates a task in it.
fn creation(scheduler: &Scheduler) -> (Commit, Reservation) {
    let task = assigned_task();
    let reservation = scheduler.reserve(&route(), task.id).expect("the worker has a free slot");
    let dispatch = Dispatch { payload: Bytes::new(), secrets: None, previous: Vec::new() };
    (Commit { tasks: vec![change(task, Some(dispatch))], ..Commit::default() }, reservation)
}

/// Returns a commit in which an attempt fails such that the agent's breaker opens.
fn failure() -> Commit {
    let mut task = assigned_task();
    let attempt = EndedAttempt {
        assignment: task.assignment.take().expect("the task is assigned"),
        fence: task.fence,
        started_at: Some(now()),
        at: now(),
        outcome: AttemptOutcome::Failed,
        failure: Some(Failure::new(Class::Auth, "invalid API key")),
    };
    task.state = State::Failed;
    let ended = AttemptEnded { task: Arc::new(task.clone()), attempt };
    Commit { tasks: vec![change(task, None)], attempts_ended: vec![ended], ..Commit::default() }
}

/// Evaluates a condition at the moment when a channel is sent to: the sender calls the waker of its receiver.
struct OnSend {
    condition: Box<dyn Fn() -> bool + Send + Sync>,
    held: OnceLock<bool>,
}

impl OnSend {
    fn new(condition: impl Fn() -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { condition: Box::new(condition), held: OnceLock::new() })
    }
}

impl Wake for OnSend {
    fn wake(self: Arc<Self>) {
        self.held.get_or_init(|| (self.condition)());
    }
}

#[test]
fn slot_runs_before_worker_can_answer() {
    let (mut applier, mut inbox) = applier();
    let (commit, reservation) = creation(&applier.scheduler);
    let (id, fence) = (commit.tasks[0].task.id, commit.tasks[0].task.fence);
    let scheduler = Arc::clone(&applier.scheduler);
    // Only a running attempt can be abandoned.
    let running = OnSend::new(move || scheduler.abandon_attempt(&worker_key(), &worker_ref(), id, fence));
    let waker = Waker::from(Arc::clone(&running));
    assert!(inbox.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    applier.apply(commit);
    reservation.commit(1);
    assert_eq!(running.held.get(), Some(&true));
}

#[test]
fn new_agent_spec_completes_its_assignments() {
    let (mut applier, mut inbox) = applier();
    let (mut commit, reservation) = creation(&applier.scheduler);
    commit.agents.push(agent_change("new"));
    applier.apply(commit);
    reservation.commit(1);
    let Some(Kind::Assign(assign)) = inbox.try_recv().unwrap().kind else { panic!("no assignment was sent") };
    let environment = assign.spec.unwrap().environment;
    assert_eq!(environment.get("VARIABLE").map(String::as_str), Some("new"));
}

#[test]
fn spec_change_closes_breaker_opened_before() {
    let (mut applier, _inbox) = applier();
    applier.agents.restore(vec![agent("old")]);
    applier.apply(failure());
    assert!(matches!(applier.breakers.state(&agent_key()), BreakerState::Open { .. }));
    applier.breakers.reset(&agent_key());
    let mut commit = failure();
    commit.agents.push(agent_change("new"));
    applier.apply(commit);
    assert_eq!(applier.breakers.state(&agent_key()), BreakerState::Closed);
}

#[test]
fn breakers_and_budgets_wake_the_alerts() {
    let (mut applier, _inbox) = applier();
    let (commit, reservation) = creation(&applier.scheduler);
    applier.apply(commit);
    reservation.commit(1);
    assert!(!applier.alerts.is_woken(), "nothing is wrong");
    applier.agents.restore(vec![agent("old")]);
    applier.apply(failure());
    assert!(applier.alerts.is_woken());
    let (namespace, _) = agent_key();
    let mut account = Account::new(namespace, Scope::Namespace);
    account.budget = Budget { daily: Some(100), ..Budget::default() };
    let mut spend = |account: &Account| {
        let change = AccountChange { account: Arc::new(account.clone()), reserved: 0 };
        applier.apply(Commit { accounts: vec![change], ..Commit::default() });
        applier.alerts.is_woken()
    };
    assert!(!spend(&account));
    account.add(100, 0, now());
    assert!(spend(&account));
    assert!(!spend(&account), "it stays so");
}

#[test]
fn notified_watchers_find_what_changed() {
    let (mut applier, _inbox) = applier();
    let (mut commit, reservation) = creation(&applier.scheduler);
    commit.agents.push(agent_change("new"));
    let (agents, scheduler) = (Arc::clone(&applier.agents), Arc::clone(&applier.scheduler));
    let applied = OnSend::new(move || {
        agents.contains(&agent_key()) && scheduler.inspect(&worker_key(), WorkerEntry::attempts) == Some(1)
    });
    let waker = Waker::from(Arc::clone(&applied));
    let event = Event { log_seq: 1, at: now(), attempt: 0, body: Body::Report(Bytes::new()) };
    commit.tasks[0].events = Arc::new([event]);
    let watchers = Arc::clone(&applier.watchers);
    let _subscription = watchers.subscribe(Topic::Task(commit.tasks[0].task.key));
    let mut relay = pin!(watchers.run(now, CancellationToken::new()));
    assert!(relay.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    applier.apply(commit);
    reservation.commit(1);
    assert_eq!(applied.held.get(), Some(&true));
}

#[test]
fn commits_of_restored_snapshot_are_skipped() {
    let (mut applier, _inbox) = applier();
    applier.agents.restore(vec![agent("old")]);
    applier.restored = Some(5);
    applier.apply(Commit { revision: 5, ..failure() });
    assert_eq!(applier.breakers.state(&agent_key()), BreakerState::Closed);
    let found = Commit { revision: 5, next_due: Some(now()), ..Commit::default() };
    applier.apply(found);
    assert!(
        applier.timer.borrow().is_some(),
        "a commit that wrote nothing is of the time after the snapshot"
    );
    applier.apply(Commit { revision: 6, ..failure() });
    assert!(matches!(applier.breakers.state(&agent_key()), BreakerState::Open { .. }));
}
