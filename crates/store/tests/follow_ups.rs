//! Follow-ups that continue over several commits, while other commands change what they meet.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use rota_core::target::Target;
use rota_core::task::{self, Dependency, DependencyKey, DependencyState, OnFailure, State, Task};
use rota_core::{Namespace, TaskId, Timestamp};
use rota_store::engine::{BatchOutcome, Engine};
use rota_store::memory::InMemoryStore;
use rota_store::{Backend, Command, Create, Error, FollowUp, Prune, Reader};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_750_000_000_000_000);
const LATER: Timestamp = Timestamp(NOW.0 + 1);

fn namespace() -> Namespace {
    Namespace::new("n").unwrap()
}

fn id(number: usize) -> TaskId {
    TaskId(Uuid::from_u128((1 << 80) + number as u128))
}

fn create(number: usize, change: impl FnOnce(&mut Task)) -> Command {
    let target = Target::Capabilities(["code".to_owned()].into());
    let mut task = Task::new(id(number), namespace(), target);
    change(&mut task);
    Command::Create(Box::new(Create {
        task,
        payload: Bytes::from_static(b"work"),
        secrets: None,
        given: Default::default(),
        key: None,
        foreign_id: true,
        strict: false,
        offer: None,
    }))
}

fn after(number: usize, key: DependencyKey) -> Command {
    let dependency =
        Dependency { key, on_failure: OnFailure::Fail, state: DependencyState::Missing, of_thread: false };
    create(number, |task| task.dependencies = vec![dependency])
}

fn named(number: usize, alias: &str) -> Command {
    create(number, |task| task.alias = Some(alias.to_owned()))
}

fn cancel(number: usize) -> Command {
    let command = task::Command::Update {
        priority: None,
        labels: None,
        desired: Some(task::Desired::Cancelled),
        reason: String::new(),
    };
    Command::Task { namespace: namespace(), id: id(number), command }
}

fn prune() -> Command {
    Command::Prune(Prune { ended_before: Some(LATER), left_before: NOW, limit: 1000 })
}

fn run(engine: &mut Engine<InMemoryStore>, batch: Vec<Command>) -> BatchOutcome {
    let outcome = engine.run(batch, LATER).unwrap();
    assert!(outcome.replies.iter().all(Result::is_ok), "{:?}", outcome.replies);
    outcome
}

fn settle(engine: &mut Engine<InMemoryStore>) {
    for _ in 0..1000 {
        if !engine.has_backlog() {
            return;
        }
        run(engine, Vec::new());
    }
    panic!("the follow-ups have no end");
}

fn find(engine: &mut Engine<InMemoryStore>, number: usize) -> Option<Task> {
    Reader::task(engine.backend(), &(namespace(), id(number))).unwrap()
}

#[test]
fn waiters_of_removed_task_find_the_next() {
    let mut engine = Engine::new(InMemoryStore::default(), 1).unwrap();
    let alias = || DependencyKey::Alias("late".to_owned());
    run(&mut engine, (100..2100).map(|number| after(number, alias())).collect());
    engine.run(vec![named(0, "late"), cancel(0)], NOW).unwrap();
    for _ in 0..3 {
        run(&mut engine, Vec::new());
    }
    assert!(engine.has_backlog());
    run(&mut engine, vec![prune(), named(1, "late")]);
    assert_eq!(find(&mut engine, 0), None);
    settle(&mut engine);
    let mut waiting = 0;
    for number in 100..2100 {
        match find(&mut engine, number) {
            None => {}
            Some(task) if task.state == State::Failed => {}
            Some(task) => {
                assert_eq!(task.dependencies[0].state, DependencyState::Waiting(id(1)), "{number}");
                waiting += 1;
            }
        }
    }
    assert!(waiting > 0, "all had found the first");
}

fn put_agent(seconds: u64) -> Command {
    let queue_timeout = Some(std::time::Duration::from_secs(seconds));
    let agent = rota_core::agent::Agent {
        namespace: namespace(),
        name: rota_core::AgentName::new("a").unwrap(),
        generation: 0,
        capabilities: [].into(),
        defaults: task::Limits { queue_timeout, ..task::Limits::default() },
        budget: Default::default(),
        created_at: NOW,
        updated_at: NOW,
        payload: Bytes::new(),
    };
    Command::PutAgent(rota_store::PutAgent { agent, must_exist: None })
}

fn for_agent(number: usize) -> Command {
    create(number, |task| task.target = Target::Agent(rota_core::AgentName::new("a").unwrap()))
}

fn timeouts(engine: &mut Engine<InMemoryStore>) -> Vec<u64> {
    let timeout = |number| find(engine, number).unwrap().defaults.queue_timeout.unwrap().as_secs();
    (0..2000).map(timeout).collect()
}

#[test]
fn agent_changed_again_and_again_reaches_its_last_task() {
    let mut engine = Engine::new(InMemoryStore::default(), 1).unwrap();
    run(&mut engine, vec![put_agent(100)]);
    run(&mut engine, (0..2000).map(for_agent).collect());
    for seconds in 101..112 {
        run(&mut engine, vec![put_agent(seconds)]);
    }
    assert!(timeouts(&mut engine).iter().all(|seconds| *seconds > 100));
    settle(&mut engine);
    assert!(timeouts(&mut engine).iter().all(|seconds| *seconds == 111));
}

/// A dependent that is created after the end knows of it: visiting it again would be work without an end.
#[test]
fn dependents_created_after_the_end_are_not_visited() {
    let mut engine = Engine::new(InMemoryStore::default(), 1).unwrap();
    run(&mut engine, vec![create(0, |_| {})]);
    run(&mut engine, (1..1000).map(|number| after(number, DependencyKey::Id(id(0)))).collect());
    run(&mut engine, vec![cancel(0)]);
    let end = Reader::revision(engine.backend()).unwrap();
    let follow_ups = Backend::snapshot(engine.backend()).unwrap().follow_ups;
    let [(_, Ok(FollowUp::Ended { id: ended, state: State::Cancelled, until, .. }))] = follow_ups[..] else {
        panic!("{follow_ups:?}")
    };
    assert!(ended == id(0) && until.0 <= end, "{follow_ups:?}");
    let late = run(&mut engine, vec![after(2000, DependencyKey::Id(id(0)))]);
    let late = late.commit.tasks.iter().find(|change| change.task.id == id(2000)).unwrap();
    assert_eq!(late.task.state, State::Failed);
    settle(&mut engine);
    assert!((1..1000).all(|number| find(&mut engine, number).unwrap().state == State::Failed));
}

#[test]
fn raised_queue_timeout_saves_tasks_not_reached_yet() {
    let mut engine = Engine::new(InMemoryStore::default(), 1).unwrap();
    run(&mut engine, vec![put_agent(10)]);
    run(&mut engine, (0..2000).map(for_agent).collect());
    run(&mut engine, vec![put_agent(1000)]);
    assert!(timeouts(&mut engine).contains(&10));
    let later = Timestamp(LATER.0 + 20_000_000);
    engine.run(vec![Command::tick(5000)], later).unwrap();
    settle(&mut engine);
    assert!((0..2000).all(|number| find(&mut engine, number).unwrap().state == State::Queued));
}

/// A backend that cannot continue the dependents of one task.
#[derive(Debug)]
struct Poisoned {
    inner: InMemoryStore,
    poison: Option<rota_core::TaskKey>,
}

impl Backend for Poisoned {
    fn load(&mut self, load: &rota_store::Load) -> Result<rota_store::Loaded, Error> {
        if load.dependents.iter().any(|page| Some(page.task) == self.poison) {
            return Err(Error::Corrupt("poison".to_owned()));
        }
        self.inner.load(load)
    }

    fn write(&mut self, changes: &rota_store::Changes) -> Result<rota_store::Written, Error> {
        self.inner.write(changes)
    }

    fn snapshot(&mut self) -> Result<rota_store::Snapshot, Error> {
        Backend::snapshot(&mut self.inner)
    }
}

#[test]
fn failing_follow_up_is_set_aside() {
    let memory = InMemoryStore::default();
    let mut engine = Engine::new(Poisoned { inner: memory.clone(), poison: None }, 1).unwrap();
    let mut batch = vec![create(0, |_| {}), create(1, |_| {})];
    batch.extend((100..1100).map(|number| after(number, DependencyKey::Id(id(number % 2)))));
    engine.run(batch, NOW).unwrap();
    engine.run(vec![cancel(0), cancel(1)], NOW).unwrap();
    let poisoned = Reader::task(&memory, &(namespace(), id(0))).unwrap().unwrap().key;
    engine.backend().poison = Some(poisoned);
    let mut set_aside = Vec::new();
    for number in 2000..2020 {
        let outcome = engine.run(vec![create(number, |_| {})], NOW).unwrap();
        assert!(outcome.replies[0].is_ok());
        set_aside.extend(outcome.commit.set_aside);
    }
    assert!(!engine.has_backlog());
    assert!(matches!(&set_aside[..], [(_, reason)] if reason.contains("poison")), "{set_aside:?}");
    let state = |number| Reader::task(&memory, &(namespace(), id(number))).unwrap().unwrap().state;
    assert!((100..1100).filter(|number| number % 2 == 1).all(|number| state(number) == State::Failed));
    // A start tries again.
    let mut engine = Engine::new(Poisoned { inner: memory.clone(), poison: None }, 1).unwrap();
    while engine.has_backlog() {
        engine.run(Vec::new(), NOW).unwrap();
    }
    assert!((100..1100).all(|number| state(number) == State::Failed));
}

/// A backend whose volume has room for small commits only.
#[derive(Debug)]
struct NearlyFull {
    inner: InMemoryStore,
    is_full: bool,
}

impl Backend for NearlyFull {
    fn load(&mut self, load: &rota_store::Load) -> Result<rota_store::Loaded, Error> {
        self.inner.load(load)
    }

    fn write(&mut self, changes: &rota_store::Changes) -> Result<rota_store::Written, Error> {
        if self.is_full && changes.updated.len() > 2 {
            return Err(Error::Unavailable { message: "the disk is full".to_owned(), hint: "" });
        }
        self.inner.write(changes)
    }

    fn snapshot(&mut self) -> Result<rota_store::Snapshot, Error> {
        Backend::snapshot(&mut self.inner)
    }
}

#[test]
fn follow_up_outlives_a_full_disk() {
    let memory = InMemoryStore::default();
    let mut engine = Engine::new(NearlyFull { inner: memory.clone(), is_full: false }, 1).unwrap();
    let mut batch = vec![create(0, |_| {})];
    batch.extend((100..1100).map(|number| after(number, DependencyKey::Id(id(0)))));
    engine.run(batch, NOW).unwrap();
    engine.run(vec![cancel(0)], NOW).unwrap();
    engine.backend().is_full = true;
    let mut now = NOW;
    for number in 2000..2020 {
        let outcome = engine.run(vec![create(number, |_| {})], now).unwrap();
        assert!(outcome.replies[0].is_ok() && outcome.commit.set_aside.is_empty(), "{outcome:?}");
        assert!(engine.has_backlog());
        // No commit is executed twice before the delay is over.
        let delay = engine.backlog_delay(now).unwrap();
        assert!(!delay.is_zero());
        now = now + delay;
    }
    engine.backend().is_full = false;
    while engine.has_backlog() {
        engine.run(Vec::new(), now).unwrap();
    }
    let state = |number| Reader::task(&memory, &(namespace(), id(number))).unwrap().unwrap().state;
    assert!((100..1100).all(|number| state(number) == State::Failed));
}

#[test]
fn waiters_of_several_objects_share_a_commit() {
    let mut engine = Engine::new(InMemoryStore::default(), 1).unwrap();
    let waiters = || (0..600).map(|number| (100 + number, format!("late-{}", number % 3)));
    run(&mut engine, waiters().map(|(number, alias)| after(number, DependencyKey::Alias(alias))).collect());
    let outcome = run(&mut engine, (0..3).map(|number| named(number, &format!("late-{number}"))).collect());
    assert!(outcome.commit.tasks.len() <= 256 + 3, "{}", outcome.commit.tasks.len());
    settle(&mut engine);
    run(&mut engine, (0..3).map(cancel).collect());
    settle(&mut engine);
    for (number, _) in waiters() {
        assert_eq!(find(&mut engine, number).unwrap().state, State::Failed, "{number}");
    }
}
