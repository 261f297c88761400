//! Work per batch: one load and one write, whatever the number of workers, routes and queued tasks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, Task, WorkerRef};
use rota_core::{AgentName, Epoch, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::{
    Backend, Changes, Claim, Command, Create, Error, Keys, OpenSession, PutAgent, Reply, Rows, Snapshot,
    Written,
};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_750_000_000_000_000);

/// Calls of a backend, and the rows that they read and wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Calls {
    loads: u32,
    writes: u32,
    rows_read: usize,
    tasks_written: usize,
}

#[derive(Debug, Default)]
struct Counting {
    inner: InMemoryStore,
    calls: Calls,
}

impl Backend for Counting {
    fn load(&mut self, keys: &Keys) -> Result<Rows, Error> {
        let rows = self.inner.load(keys)?;
        self.calls.loads += 1;
        let ready: usize = rows.ready.iter().map(|(_, rows)| rows.len()).sum();
        self.calls.rows_read += rows.tasks.len() + ready + rows.dependents.len() + rows.waits.len();
        Ok(rows)
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        self.calls.writes += 1;
        self.calls.tasks_written += changes.inserted.len() + changes.updated.len();
        self.inner.write(changes)
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        self.inner.snapshot()
    }
}

fn namespace() -> Namespace {
    Namespace::new("n").unwrap()
}

fn agent(number: usize) -> AgentName {
    AgentName::new(&format!("a{number}")).unwrap()
}

fn id(number: usize) -> TaskId {
    TaskId(Uuid::from_u128((1 << 80) + number as u128))
}

fn create(number: usize, target: Target, offer: Option<WorkerRef>) -> Command {
    let payload = Bytes::from_static(b"work");
    let task = Task::new(id(number), namespace(), target);
    Command::Create(Box::new(Create {
        task,
        payload,
        secrets: None,
        key: Some(number.to_string()),
        foreign_id: false,
        strict: false,
        offer,
    }))
}

fn put_agent(number: usize) -> Command {
    let agent = Agent {
        namespace: namespace(),
        name: agent(number),
        generation: 0,
        capabilities: [].into(),
        defaults: task::Limits::default(),
        created_at: NOW,
        updated_at: NOW,
        payload: Bytes::new(),
    };
    Command::PutAgent(PutAgent { agent, must_exist: None })
}

fn hello(number: usize) -> Command {
    Command::OpenSession(OpenSession {
        namespace: namespace(),
        worker: WorkerName::new(&format!("w{number}")).unwrap(),
        agent: agent(0),
        instance: "process".to_owned(),
        replica: "replica".to_owned(),
        running: Vec::new(),
        last: None,
    })
}

fn on(id: TaskId, command: task::Command) -> Command {
    Command::Task { namespace: namespace(), id, command }
}

fn worker(number: usize) -> WorkerRef {
    WorkerRef { worker: WorkerName::new(&format!("w{number}")).unwrap(), epoch: Epoch(1) }
}

/// Executes one batch, and returns its calls.
fn calls(engine: &mut Engine<Counting>, batch: Vec<Command>) -> (Calls, Vec<Reply>) {
    engine.backend().calls = Calls::default();
    let outcome = engine.run(batch, NOW).unwrap();
    let replies = outcome.replies.into_iter().map(Result::unwrap).collect();
    (engine.backend().calls, replies)
}

/// Returns the calls of each step in the life of a task, in a store of a given size.
fn life_of_a_task(size: usize) -> Vec<Calls> {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let mut all: Vec<_> = (0..size).map(put_agent).chain((0..size).map(hello)).collect();
    // As many routes as agents, and as many queued tasks for agent 0.
    all.extend((1..size).map(|number| create(number, Target::Agent(agent(number)), None)));
    all.extend((size..2 * size).map(|number| create(number, Target::Agent(agent(0)), None)));
    calls(&mut engine, all);

    let mut steps = Vec::new();
    let task = 5 * size;
    let mut step = |batch| {
        let (calls, replies) = calls(&mut engine, batch);
        steps.push(calls);
        replies
    };
    step(vec![create(task, Target::Agent(agent(0)), Some(worker(0)))]);
    let attempt = AttemptRef { by: worker(0), fence: rota_core::Fence(1) };
    step(vec![on(id(task), task::Command::Accept(attempt.clone()))]);
    let completion = Completion::Succeeded(Some(Bytes::from_static(b"done")));
    let finish = |attempt| task::Command::Finish {
        attempt,
        completion,
        usage: None,
        session: String::new(),
        jitter: 0.0,
    };
    step(vec![on(id(task), finish(attempt))]);
    let claim = Claim {
        namespace: namespace(),
        worker: worker(1),
        routes: vec![RouteId(u32::try_from(size).unwrap())],
        slots: 4,
    };
    let replies = step(vec![Command::Claim(claim)]);
    assert!(matches!(replies[..], [Reply::Claimed(4)]), "{replies:?}");
    step(vec![hello(size + 1)]);
    steps
}

#[test]
fn work_is_independent_of_size() {
    let (small, large) = (life_of_a_task(100), life_of_a_task(1000));
    assert_eq!(small, large);
    for calls in &small {
        assert!(calls.loads <= 1 && calls.writes == 1, "{calls:?}");
    }
}

#[test]
fn large_batch_loads_and_writes_once() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let batch = (0..500).map(|number| create(number, Target::Agent(agent(0)), None)).collect();
    let (created, _) = calls(&mut engine, batch);
    assert_eq!((created.loads, created.writes, created.tasks_written), (1, 1, 500));
    let claim = Claim { namespace: namespace(), worker: worker(0), routes: vec![RouteId(1)], slots: 200 };
    let (claimed, _) = calls(&mut engine, vec![Command::Claim(claim)]);
    assert_eq!((claimed.loads, claimed.writes, claimed.rows_read), (1, 1, 200));
    let attempt = AttemptRef { by: worker(0), fence: rota_core::Fence(1) };
    let accept = |number| on(id(number), task::Command::Accept(attempt.clone()));
    let (accepted, _) = calls(&mut engine, (0..200).map(accept).collect());
    assert_eq!((accepted.loads, accepted.writes), (0, 1), "tasks on workers are in memory");
}

#[test]
fn batch_without_changes_writes_nothing() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let (idle, _) = calls(&mut engine, vec![Command::Tick { limit: 100 }]);
    assert_eq!((idle.loads, idle.writes), (1, 0));
}

#[test]
fn follow_ups_load_once_per_round() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0), create(0, Target::Agent(agent(0)), None)]);
    let dependents = (1..300).map(|number| {
        let Command::Create(mut create) = create(number, Target::Agent(agent(0)), None) else {
            unreachable!()
        };
        let key = task::DependencyKey::Id(id(0));
        let on_failure = task::OnFailure::Fail;
        create.task.dependencies =
            vec![task::Dependency { key, on_failure, state: task::DependencyState::Missing }];
        Command::Create(create)
    });
    calls(&mut engine, dependents.collect());
    let cancel = task::Command::Update {
        priority: None,
        labels: None,
        desired: Some(task::Desired::Cancelled),
        reason: "not needed".to_owned(),
    };
    let (cancelled, _) = calls(&mut engine, vec![on(id(0), cancel)]);
    assert_eq!((cancelled.loads, cancelled.writes, cancelled.tasks_written), (2, 1, 300));
}
