//! Damaged records harm themselves alone, and a writer that was replaced writes nothing.

use rota_core::task::{self, Dependency, DependencyKey, DependencyState, OnFailure, WorkerRef};
use rota_core::workflow::{Kind, Step, Workflow};
use rota_core::{Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName, WorkflowId};
use rota_store::engine::{BatchOutcome, Engine};
use rota_store::{
    Budget, Claim, Command, CreateWorkflow, DocumentKey, DocumentKind, Error, Expected, Filter, NewStep,
    OpenSession, Prune, PutDocument, Reader, Refused, Reply, WorkflowCommand, WorkflowQuery,
};

use super::{NOW, create, id, scoped};
use crate::Writer;

/// A record that a newer version could have written: a map with an unknown state.
const DAMAGE: &str = "UPDATE tasks SET record = x'81a57374617465a46e6577' WHERE id = ?";

fn engine(folder: &std::path::Path) -> Engine<Writer> {
    let (writer, _readers) = crate::open_connections(&folder.join("rota.db")).unwrap();
    Engine::new(writer, 0).unwrap()
}

fn run(engine: &mut Engine<Writer>, batch: Vec<Command>, now: Timestamp) -> BatchOutcome {
    engine.run(batch, now).unwrap()
}

fn damage(engine: &mut Engine<Writer>, id: TaskId) {
    assert_eq!(engine.backend().connection().execute(DAMAGE, [id.0]).unwrap(), 1);
}

fn hello() -> Command {
    Command::OpenSession(OpenSession {
        namespace: Namespace::new("n").unwrap(),
        worker: WorkerName::new("w").unwrap(),
        agent: rota_core::AgentName::new("a").unwrap(),
        instance: "process".to_owned(),
        replica: "replica".to_owned(),
        running: Vec::new(),
        last: None,
        takes_name: true,
    })
}

fn claim(slots: usize) -> Command {
    let worker = WorkerRef { worker: WorkerName::new("w").unwrap(), epoch: Epoch(1) };
    Command::Claim(Claim {
        namespace: Namespace::new("n").unwrap(),
        worker,
        routes: vec![RouteId(1)],
        shared: Vec::new(),
        probes: None,
        not_isolating: Default::default(),
        slots,
    })
}

fn tick(id: TaskId) -> Command {
    Command::Task { namespace: Namespace::new("n").unwrap(), id, command: task::Command::TICK }
}

#[test]
fn damaged_record_at_head_of_queue_is_passed() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    run(&mut engine, vec![create(0, 10), create(1, 10), hello()], NOW);
    damage(&mut engine, id(0));
    let outcome = run(&mut engine, vec![claim(1), create(2, 10)], NOW);
    assert!(matches!(outcome.replies[..], [Ok(Reply::Claimed(1)), Ok(Reply::Created(_))]), "{outcome:?}");
    assert_eq!(outcome.commit.undecodable[0].0, format!("task {}", id(0)));
    assert_eq!(outcome.commit.quarantined.len(), 1, "it waits no longer");
    assert!(outcome.commit.tasks.iter().any(|change| change.task.id == id(1) && change.dispatch.is_some()));
    // It is out of the queue, answers for itself, and is reported once.
    let outcome = run(&mut engine, vec![tick(id(0)), claim(1)], NOW);
    assert!(matches!(&outcome.replies[0], Err(Refused::Corrupt { what, .. }) if what.contains("0197")));
    assert!(matches!(outcome.replies[1], Ok(Reply::Claimed(1))), "{outcome:?}");
    assert_eq!(outcome.commit.undecodable, []);
    assert!(outcome.commit.quarantined.is_empty());
}

#[test]
fn damaged_record_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, readers) = crate::open_connections(&folder.path().join("rota.db")).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    run(&mut engine, vec![create(0, 10), create(1, 10)], NOW);
    damage(&mut engine, id(0));
    let filter = Filter { limit: 10, ..Filter::default() };
    let ids = || readers.list(&filter).unwrap().tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(), [id(1)]);
    assert_eq!(readers.stats(&[RouteId(1)]).unwrap().next, [], "its head is damaged");
    assert_eq!(readers.feed(0, Budget::UNLIMITED).unwrap().entries.len(), 2);
    assert!(matches!(readers.task(&scoped(0)), Err(Error::Corrupt(_))));
    // A prune must not take the queue behind it for empty.
    let prune = Prune { ended_before: None, left_before: NOW, limit: 10 };
    let outcome = run(&mut engine, vec![Command::Prune(prune)], NOW);
    assert_eq!(outcome.commit.removed_routes, []);
    assert_eq!(ids(), [id(1)]);
    assert_eq!(readers.stats(&[RouteId(1)]).unwrap().next.len(), 1);
}

#[test]
fn damaged_task_is_not_taken_for_a_missing_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    run(&mut engine, vec![create(0, 10)], NOW);
    damage(&mut engine, id(0));
    let Command::Create(mut again) = create(1, 10) else { unreachable!() };
    again.key = Some("0".to_owned());
    let Command::Create(mut dependent) = create(2, 10) else { unreachable!() };
    let (key, on_failure) = (DependencyKey::Id(id(0)), OnFailure::Fail);
    dependent.task.dependencies =
        vec![Dependency { key, on_failure, state: DependencyState::Missing, of_thread: false }];
    let batch = vec![Command::Create(again), Command::Create(dependent), create(0, 10)];
    for reply in run(&mut engine, batch, NOW).replies {
        assert!(matches!(reply, Err(Refused::Corrupt { .. })), "{reply:?}");
    }
}

#[test]
fn repaired_record_returns_at_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    run(&mut engine, vec![create(0, 10), hello()], NOW);
    let record: Vec<u8> = {
        let connection = engine.backend().connection();
        connection.query_row("SELECT record FROM tasks", [], |row| row.get(0)).unwrap()
    };
    damage(&mut engine, id(0));
    assert!(matches!(run(&mut engine, vec![claim(1)], NOW).replies[0], Ok(Reply::Claimed(0))));
    drop(engine);
    // Still damaged: reported again, so that the alert outlives a restart.
    let mut engine = self::engine(folder.path());
    assert_eq!(run(&mut engine, vec![claim(1)], NOW).commit.undecodable.len(), 1);
    // As if a newer version, which wrote the record, opened the store.
    engine.backend().connection().execute("UPDATE tasks SET record = ?", [record]).unwrap();
    drop(engine);
    let mut engine = self::engine(folder.path());
    let outcome = run(&mut engine, vec![claim(1)], NOW);
    assert!(matches!(outcome.replies[0], Ok(Reply::Claimed(1))), "{outcome:?}");
    assert_eq!(outcome.commit.undecodable, []);
}

#[test]
fn damaged_due_record_stops_no_timer() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    run(&mut engine, vec![create(0, 10), create(1, 10), hello(), claim(2)], NOW);
    damage(&mut engine, id(0));
    // A restart finds it among the tasks on workers.
    drop(engine);
    let mut engine = self::engine(folder.path());
    let Command::OpenSession(mut back) = hello() else { panic!("no session") };
    back.running = vec![(id(1), Fence(1))];
    let outcome = run(&mut engine, vec![Command::OpenSession(back)], NOW);
    assert_eq!(outcome.commit.undecodable.len(), 1);
    let later = Timestamp(NOW.0 + 2 * 3_600_000_000);
    let outcome = run(&mut engine, vec![Command::tick(10)], later);
    let ticked: Vec<_> = outcome.commit.tasks.iter().map(|change| change.task.id).collect();
    assert_eq!(ticked, [id(1)]);
    let outcome = run(&mut engine, vec![Command::tick(10)], later);
    assert!(matches!(outcome.replies[0], Ok(Reply::Ticked(0))), "{outcome:?}");
}

#[test]
fn replaced_writer_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    run(&mut engine, vec![create(0, 10)], NOW);
    // As if another process had opened the file, whatever became of the lock.
    let other = rusqlite::Connection::open(folder.path().join("rota.db")).unwrap();
    other.execute("UPDATE shards SET epoch = epoch + 1", []).unwrap();
    assert!(matches!(engine.run(vec![create(1, 10)], NOW), Err(Error::Deposed)));
    let tasks: u32 = other.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(tasks, 1);
}

#[test]
fn write_on_another_revision_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    run(&mut engine, vec![create(0, 10)], NOW);
    // As if another writer of the same epoch had committed.
    let other = rusqlite::Connection::open(folder.path().join("rota.db")).unwrap();
    other.execute("UPDATE shards SET revision = revision + 1", []).unwrap();
    assert!(matches!(engine.run(vec![create(1, 10)], NOW), Err(Error::Deposed)));
    let tasks: u32 = other.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(tasks, 1);
}

#[test]
fn damaged_end_reaches_its_dependents() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    let dependent = |number| {
        let Command::Create(mut dependent) = create(number, 10) else { unreachable!() };
        let (key, on_failure) = (DependencyKey::Id(id(0)), OnFailure::Fail);
        dependent.task.dependencies =
            vec![Dependency { key, on_failure, state: DependencyState::Missing, of_thread: false }];
        Command::Create(dependent)
    };
    let mut batch = vec![create(0, 10)];
    batch.extend((1..600).map(dependent));
    let desired = Some(task::Desired::Cancelled);
    let cancel = task::Command::Update { priority: None, labels: None, desired, reason: String::new() };
    let cancel = Command::Task { namespace: Namespace::new("n").unwrap(), id: id(0), command: cancel };
    run(&mut engine, batch, NOW);
    run(&mut engine, vec![cancel], NOW);
    assert!(engine.has_backlog());
    damage(&mut engine, id(0));
    while engine.has_backlog() {
        run(&mut engine, Vec::new(), NOW);
    }
    let failed = "SELECT count(*) FROM tasks WHERE state = 7";
    let failed: u32 = engine.backend().connection().query_row(failed, [], |row| row.get(0)).unwrap();
    assert_eq!(failed, 599);
}

#[test]
fn undecodable_follow_up_is_reported_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    run(&mut engine, vec![create(0, 10)], NOW);
    engine
        .backend()
        .connection()
        .execute("INSERT INTO follow_ups VALUES (7, x'81a57374617465a46e6577')", [])
        .unwrap();
    drop(engine);
    let mut engine = self::engine(folder.path());
    assert!(!engine.has_backlog());
    let outcome = run(&mut engine, vec![create(1, 10)], NOW);
    assert!(matches!(&outcome.commit.set_aside[..], [(7, _)]), "{:?}", outcome.commit.set_aside);
    assert!(run(&mut engine, vec![create(2, 10)], NOW).commit.set_aside.is_empty());
    let kept = "SELECT count(*) FROM follow_ups";
    let kept: u32 = engine.backend().connection().query_row(kept, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1);
}

#[test]
fn damaged_task_is_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    let Command::Create(mut dependent) = create(1, 10) else { unreachable!() };
    let (key, on_failure) = (DependencyKey::Id(id(0)), OnFailure::Fail);
    dependent.task.dependencies =
        vec![Dependency { key, on_failure, state: DependencyState::Missing, of_thread: false }];
    dependent.task.alias = None;
    run(&mut engine, vec![create(0, 10), Command::Create(dependent)], NOW);
    damage(&mut engine, id(0));
    let outcome = run(&mut engine, vec![Command::RemoveTask(scoped(0)), tick(id(0))], NOW);
    assert!(matches!(outcome.replies[0], Ok(Reply::Pruned { count: 1, .. })), "{outcome:?}");
    assert!(matches!(outcome.replies[1], Err(Refused::NoTask(_))), "{outcome:?}");
    assert_eq!(outcome.commit.quarantined.len(), 1, "it has waited until then");
    let count = |engine: &mut Engine<Writer>, sql: &str| -> u32 {
        engine.backend().connection().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(
        count(&mut engine, "SELECT count(*) FROM tasks WHERE state = 7"),
        1,
        "the dependent has failed"
    );
    for table in ["tasks", "payloads", "aliases", "edges"] {
        let left = u32::from(["tasks", "payloads"].contains(&table));
        assert_eq!(count(&mut engine, &format!("SELECT count(*) FROM {table}")), left, "{table}");
    }
    drop(engine);
    let mut engine = self::engine(folder.path());
    let outcome = run(&mut engine, vec![create(0, 10)], NOW);
    assert!(matches!(outcome.replies[0], Err(Refused::KeyOutlived(_))), "{outcome:?}");
    assert_eq!(outcome.commit.undecodable, []);
}

#[test]
fn damaged_document_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    let (kind, name) = (DocumentKind::Schedule, "nightly".to_owned());
    let key = DocumentKey { kind, namespace: Namespace::new("n").unwrap(), name };
    let put = PutDocument { key: key.clone(), payload: bytes::Bytes::new(), expected: Expected::Absent };
    run(&mut engine, vec![Command::PutDocument(put.clone())], NOW);
    let damage = "UPDATE documents SET record = x'81a57374617465a46e6577'";
    assert_eq!(engine.backend().connection().execute(damage, []).unwrap(), 1);
    let delete = || Command::DeleteDocument(key.clone(), Expected::Any);
    let batch = vec![Command::PutDocument(put.clone()), delete(), delete(), Command::PutDocument(put)];
    let replies = run(&mut engine, batch, NOW).replies;
    let [
        Err(Refused::Corrupt { .. }),
        Ok(Reply::Deleted),
        Err(Refused::NoDocument(_)),
        Ok(Reply::Document(_)),
    ] = &replies[..]
    else {
        panic!("{replies:?}")
    };
}

/// A start reads the steps that wait for the driver page by page, until one is empty.
#[test]
fn damaged_steps_end_no_list_early() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, readers) = crate::open_connections(&folder.path().join("rota.db")).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    let step = |name: &str| NewStep::new(Step::new(name.to_owned(), Kind::Task));
    let workflow = Workflow::new(WorkflowId(id(0).0), Namespace::new("n").unwrap());
    let create = CreateWorkflow::new(workflow, vec![step("a"), step("b"), step("c")]);
    run(&mut engine, vec![WorkflowCommand::Create(Box::new(create)).into()], NOW);
    let damage = "UPDATE steps SET record = x'81a57374617465a46e6577' WHERE step < 2";
    assert_eq!(engine.backend().connection().execute(damage, []).unwrap(), 2);
    let page = readers.workflows(&WorkflowQuery::Driven { after: None, limit: 2 }).unwrap();
    assert_eq!(page.steps.iter().map(|step| &step.name[..]).collect::<Vec<_>>(), ["c"]);
}
