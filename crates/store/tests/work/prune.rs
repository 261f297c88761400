//! What one commit of a prune looks at, and removes.

use rota_core::target::Target;
use rota_core::task::Loss;
use rota_core::workflow::{Command as Apply, Kind, Step, Workflow};
use rota_core::{Timestamp, WorkflowId};
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::{
    Backend, Changes, Command, CreateWorkflow, EndSession, Error, Load, Loaded, NewStep, Prune, Reply,
    Snapshot, WorkflowCommand, Written,
};
use uuid::Uuid;

use super::{Counting, NOW, agent, calls, cancel, create, hello, namespace, put_agent, worker};

/// A time at which all that has ended has expired.
const LATER: Timestamp = Timestamp(NOW.0 + 365 * 24 * 3_600_000_000);

/// A store that counts what is removed from it: sessions, keys, threads, tasks and routes.
#[derive(Debug, Default)]
struct Removals {
    inner: InMemoryStore,
    removed: [usize; 5],
}

impl Backend for Removals {
    fn load(&mut self, load: &Load) -> Result<Loaded, Error> {
        self.inner.load(load)
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        let removed = [
            changes.removed_sessions.len(),
            changes.removed_keys.len(),
            changes.removed_threads.len(),
            changes.removed.len(),
            changes.removed_routes.len(),
        ];
        self.removed.iter_mut().zip(removed).for_each(|(sum, count)| *sum += count);
        self.inner.write(changes)
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        Backend::snapshot(&mut self.inner)
    }

    fn stored_revision(&mut self) -> Result<u64, Error> {
        self.inner.stored_revision()
    }
}

fn run(engine: &mut Engine<Removals>, batch: Vec<Command>) -> Vec<Reply> {
    engine.run(batch, NOW).unwrap().replies.into_iter().map(Result::unwrap).collect()
}

/// Returns how many records a commit removes, and whether there may be more.
fn pruned(engine: &mut Engine<Removals>, limit: usize) -> (usize, bool) {
    let prune = Prune { ended_before: Some(LATER), left_before: LATER, limit };
    match run(engine, vec![Command::Prune(prune)])[..] {
        [Reply::Pruned { count, more }] => (count, more),
        ref other => panic!("{other:?}"),
    }
}

/// Returns a store with a hundred of each kind that have expired: keys, sessions, tasks, each in a thread and on a route of its own, and
/// workflows.
fn expired() -> Engine<Removals> {
    let mut engine = Engine::new(Removals::default(), 1).unwrap();
    let task = |number: usize| {
        let target = Target::Capabilities([format!("c{number}")].into());
        let Command::Create(mut create) = create(number, target, None) else { unreachable!() };
        create.task.thread = (number >= 100).then(|| format!("thread-{number}"));
        Command::Create(create)
    };
    for numbers in [0..100, 100..200] {
        // Keys outlive the first tasks.
        pruned(&mut engine, 1000);
        run(&mut engine, numbers.clone().map(task).collect());
        run(&mut engine, numbers.map(cancel).collect());
    }
    let end = |number: usize| {
        let (session, message) = (worker(number), String::new());
        Command::EndSession(EndSession {
            namespace: namespace(),
            session,
            loss: Loss::Died,
            seen: None,
            message,
        })
    };
    run(&mut engine, std::iter::once(put_agent(0)).chain((0..100).map(hello)).collect());
    run(&mut engine, (0..100).map(end).collect());
    let id = |number: usize| WorkflowId(Uuid::from_u128(number as u128 + 1));
    let workflow = |number: usize| {
        let step = Step::new("a".to_owned(), Kind::Signal { timeout: None });
        let create = CreateWorkflow::new(Workflow::new(id(number), namespace()), vec![NewStep::new(step)]);
        WorkflowCommand::Create(Box::new(create)).into()
    };
    let cancel = |number: usize| {
        let command = Apply::Cancel { reason: String::new() };
        WorkflowCommand::Apply { namespace: namespace(), id: id(number), command }.into()
    };
    run(&mut engine, (0..100).map(workflow).collect());
    run(&mut engine, (0..100).map(cancel).collect());
    while engine.has_backlog() {
        run(&mut engine, Vec::new());
    }
    engine.backend().removed = Default::default();
    engine
}

#[test]
fn kinds_share_the_limit_of_a_prune() {
    const LIMIT: usize = 60;
    let mut engine = expired();
    assert_eq!(pruned(&mut engine, LIMIT), (LIMIT, true));
    // The others are workflows. Routes are the last.
    assert_eq!(engine.backend().removed, [12, 12, 12, 12, 0]);
    for _ in 0..100 {
        let (count, more) = pruned(&mut engine, LIMIT);
        assert!(count <= LIMIT, "{count}");
        if !more {
            break;
        }
    }
    let [sessions, keys, threads, tasks, routes] = engine.backend().removed;
    assert_eq!([sessions, threads, tasks, routes], [100; 4]);
    assert!(keys >= 100, "{keys}");
}

#[test]
fn routes_are_looked_through_in_pieces() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, (0..600).map(put_agent).collect());
    // An agent stands behind each route but the last.
    calls(&mut engine, (0..600).map(|number| create(number, Target::Agent(agent(number)), None)).collect());
    let unused = create(600, Target::Capabilities(["x".to_owned()].into()), None);
    calls(&mut engine, vec![unused, cancel(600)]);
    let mut pruned = || {
        let prune = Command::Prune(Prune { ended_before: None, left_before: NOW, limit: 200 });
        match calls(&mut engine, vec![prune]).1[..] {
            [Reply::Pruned { count, more }] => (count, more),
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!([pruned(), pruned(), pruned()], [(0, true), (0, true), (1, false)]);
    // The next prune begins with the first route again.
    assert_eq!(pruned(), (0, true));
}
