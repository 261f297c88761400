//! Work per batch: one load and one write, whatever the number of workers, routes and queued tasks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claims;
mod clock;
mod counting;
mod groups;
mod prune;
mod removal;
mod rounds;
mod steps;
mod threads;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, Task, WorkerRef};
use rota_core::{AgentName, Epoch, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_store::engine::Engine;
use rota_store::{Claim, Command, Create, OpenSession, PutAgent, Reply};
use uuid::Uuid;

use self::counting::{Calls, Counting};

const NOW: Timestamp = Timestamp(1_750_000_000_000_000);

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
        given: Default::default(),
        key: Some(number.to_string()),
        foreign_id: true,
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
        budget: Default::default(),
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
        takes_name: true,
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

/// Returns a store with as many agents, workers and routes as its size, and as many queued tasks of agent 0.
fn filled(size: usize) -> Engine<Counting> {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let mut all: Vec<_> = (0..size).map(put_agent).chain((0..size).map(hello)).collect();
    all.extend((1..size).map(|number| create(number, Target::Agent(agent(number)), None)));
    all.extend((size..2 * size).map(|number| create(number, Target::Agent(agent(0)), None)));
    calls(&mut engine, all);
    engine
}

/// Returns the calls of each step in the life of a task, in a store of a given size.
fn life_of_a_task(size: usize) -> Vec<Calls> {
    let mut engine = filled(size);
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
        last: 0,
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
        shared: Vec::new(),
        probes: None,
        not_isolating: Default::default(),
        slots: 4,
    };
    let replies = step(vec![Command::Claim(claim)]);
    assert!(matches!(replies[..], [Reply::Claimed(4)]), "{replies:?}");
    step(vec![hello(size + 1)]);
    steps
}

#[test]
fn work_is_independent_of_size() {
    let (small, large) = (life_of_a_task(100), life_of_a_task(10_000));
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
    let claim = Claim {
        namespace: namespace(),
        worker: worker(0),
        routes: vec![RouteId(1)],
        shared: Vec::new(),
        probes: None,
        not_isolating: Default::default(),
        slots: 200,
    };
    let (claimed, _) = calls(&mut engine, vec![Command::Claim(claim)]);
    assert_eq!((claimed.loads, claimed.writes, claimed.rows_read), (1, 1, 200));
    let attempt = AttemptRef { by: worker(0), fence: rota_core::Fence(1) };
    let accept = |number| on(id(number), task::Command::Accept(attempt.clone()));
    let (accepted, _) = calls(&mut engine, (0..200).map(accept).collect());
    assert_eq!((accepted.loads, accepted.writes), (0, 1), "tasks on workers are in memory");
}

#[test]
fn failed_batch_reads_no_snapshot() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let target = || Target::Agent(agent(0));
    calls(&mut engine, vec![put_agent(0), hello(0), create(0, target(), Some(worker(0)))]);
    engine.backend().is_full = true;
    for _ in 0..3 {
        let batch = vec![put_agent(1), hello(1), create(1, target(), Some(worker(1))), cancel(0)];
        assert!(engine.run(batch, NOW).is_err());
    }
    engine.backend().is_full = false;
    assert_eq!(engine.backend().snapshots, 1, "that of the start");
    // Nothing of the failed batches is left.
    let batch = vec![create(1, target(), Some(worker(1))), put_agent(1), hello(1), cancel(0)];
    let outcome = engine.run(batch, NOW).unwrap();
    assert!(
        matches!(&outcome.replies[0], Ok(Reply::Created(task)) if task.assignment.is_none()),
        "{outcome:?}"
    );
    assert!(outcome.replies[1..].iter().all(Result::is_ok), "{outcome:?}");
}

#[test]
fn batch_without_changes_writes_nothing() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let (idle, _) = calls(&mut engine, vec![Command::tick(100)]);
    assert_eq!((idle.loads, idle.writes), (1, 0));
}

fn dependents(count: usize) -> Vec<Command> {
    let dependent = |number| {
        let Command::Create(mut create) = create(number, Target::Agent(agent(0)), None) else {
            unreachable!()
        };
        let key = task::DependencyKey::Id(id(0));
        let on_failure = task::OnFailure::Fail;
        create.task.dependencies = vec![task::Dependency {
            key,
            on_failure,
            state: task::DependencyState::Missing,
            of_thread: false,
        }];
        Command::Create(create)
    };
    (1..=count).map(dependent).collect()
}

fn cancel(number: usize) -> Command {
    let cancel = task::Command::Update {
        priority: None,
        labels: None,
        desired: Some(task::Desired::Cancelled),
        reason: "not needed".to_owned(),
    };
    on(id(number), cancel)
}

#[test]
fn follow_ups_load_once_per_round() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0), create(0, Target::Agent(agent(0)), None)]);
    calls(&mut engine, dependents(200));
    let (cancelled, _) = calls(&mut engine, vec![cancel(0)]);
    assert_eq!((cancelled.loads, cancelled.writes, cancelled.tasks_written), (2, 1, 201));
    assert!(!engine.has_backlog());
}

#[test]
fn end_of_assigned_task_loads_its_dependents_with_the_batch() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0), create(0, Target::Agent(agent(0)), Some(worker(0)))]);
    calls(&mut engine, dependents(10));
    let (cancelled, _) = calls(&mut engine, vec![cancel(0)]);
    let attempt = AttemptRef { by: worker(0), fence: rota_core::Fence(1) };
    let completion = Completion::Stopped { by: "itself".to_owned() };
    let finish = task::Command::Finish {
        attempt,
        completion,
        last: 0,
        usage: None,
        session: String::new(),
        jitter: 0.0,
    };
    let (finished, _) = calls(&mut engine, vec![on(id(0), finish)]);
    assert!(cancelled.loads <= 1 && cancelled.writes == 1, "{cancelled:?}");
    assert_eq!((finished.loads, finished.writes, finished.tasks_written), (1, 1, 11));
}

#[test]
fn large_follow_up_continues_in_pieces_between_other_commands() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0), create(0, Target::Agent(agent(0)), None)]);
    calls(&mut engine, dependents(2000));
    let (first, _) = calls(&mut engine, vec![cancel(0)]);
    assert_eq!(first.tasks_written, 257);
    let mut written = first.tasks_written;
    for number in 3000.. {
        if !engine.has_backlog() {
            break;
        }
        // A creation, a dependent of it, and its end have all of their consequences in one commit.
        let Command::Create(mut dependent) = create(number + 10_000, Target::Agent(agent(0)), None) else {
            unreachable!()
        };
        let (key, on_failure) = (task::DependencyKey::Id(id(number)), task::OnFailure::Fail);
        dependent.task.dependencies = vec![task::Dependency {
            key,
            on_failure,
            state: task::DependencyState::Missing,
            of_thread: false,
        }];
        let own = create(number, Target::Agent(agent(0)), None);
        let batch = vec![own, Command::Create(dependent), cancel(number), cancel(number + 10_000)];
        engine.backend().calls = Calls::default();
        let outcome = engine.run(batch, NOW).unwrap();
        assert!(outcome.replies[..3].iter().all(Result::is_ok), "{:?}", outcome.replies);
        assert!(outcome.replies[3].is_err(), "it has failed with the task that it needs");
        let calls = engine.backend().calls;
        assert!(calls.tasks_written <= 256 + 2 && calls.rows_read <= 2 * 256 + 4, "{calls:?}");
        assert!(calls.keys_read <= 256, "{calls:?}");
        written += calls.tasks_written - 2;
    }
    assert_eq!(written, 2001);
}

fn named(number: usize, alias: usize) -> Command {
    let Command::Create(mut create) = create(number, Target::Agent(agent(0)), None) else { unreachable!() };
    create.task.alias = Some(format!("alias-{alias}"));
    Command::Create(create)
}

fn needing(number: usize, keys: impl IntoIterator<Item = task::DependencyKey>) -> Command {
    let Command::Create(mut create) = create(number, Target::Agent(agent(0)), None) else { unreachable!() };
    let on_failure = task::OnFailure::Fail;
    let state = task::DependencyState::Missing;
    create.task.dependencies =
        keys.into_iter().map(|key| task::Dependency { key, on_failure, state, of_thread: false }).collect();
    Command::Create(create)
}

/// Records are loaded when they are visited: a batch that names much does not hold all of it in memory.
#[test]
fn records_of_waiters_are_loaded_when_visited() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0)]);
    let alias = |number| task::DependencyKey::Alias(format!("alias-{number}"));
    calls(&mut engine, (0..800).map(|number| needing(1000 + number, (0..20).map(alias))).collect());
    let (created, _) = calls(&mut engine, (0..20).map(|number| named(number, number)).collect());
    assert!(created.rows_read <= 2 * 256, "{created:?}");
    assert!(created.keys_read <= 20 * 256, "a page for each name: {created:?}");
    assert!(created.loads <= 4, "{created:?}");
}

#[test]
fn only_states_of_dependencies_are_loaded() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0)]);
    calls(&mut engine, (0..200).map(|number| named(number, number)).collect());
    let keys = |number: usize| {
        let alias = task::DependencyKey::Alias(format!("alias-{number}"));
        [task::DependencyKey::Id(id(number)), alias]
    };
    let dependents = (0..100).map(|number| needing(1000 + number, (0..200).flat_map(keys)));
    let (created, _) = calls(&mut engine, dependents.collect());
    assert_eq!((created.loads, created.writes, created.rows_read), (1, 1, 0), "no records");
    assert!((200..=400).contains(&created.keys_read), "each state is read once: {created:?}");
    // The edges exist, and lead to the dependents.
    let (cancelled, _) = calls(&mut engine, vec![cancel(0)]);
    assert_eq!(cancelled.tasks_written, 101);
}
