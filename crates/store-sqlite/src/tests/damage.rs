//! Damaged records harm themselves alone, and a writer that was replaced writes nothing.

use rota_core::task::{self, WorkerRef};
use rota_core::{Epoch, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_store::engine::{BatchOutcome, Engine};
use rota_store::{Claim, Command, Error, OpenSession, Refused, Reply};

use super::{NOW, create, id};
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
    })
}

fn claim(slots: usize) -> Command {
    let worker = WorkerRef { worker: WorkerName::new("w").unwrap(), epoch: Epoch(1) };
    Command::Claim(Claim { namespace: Namespace::new("n").unwrap(), worker, routes: vec![RouteId(1)], slots })
}

fn tick(id: TaskId) -> Command {
    Command::Task { namespace: Namespace::new("n").unwrap(), id, command: task::Command::Tick }
}

#[test]
fn damaged_record_at_head_of_queue_is_passed() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    run(&mut engine, vec![create(0, 10), create(1, 10), hello()], NOW);
    damage(&mut engine, id(0));
    let outcome = run(&mut engine, vec![claim(1), create(2, 10)], NOW);
    assert!(matches!(outcome.replies[..], [Ok(Reply::Claimed(1)), Ok(Reply::Created(_))]), "{outcome:?}");
    assert_eq!(outcome.commit.quarantined[0].0, id(0));
    assert!(outcome.commit.tasks.iter().any(|change| change.task.id == id(1) && change.dispatch.is_some()));
    // It is out of the queue, answers for itself, and is reported once.
    let outcome = run(&mut engine, vec![tick(id(0)), claim(1)], NOW);
    assert!(matches!(&outcome.replies[0], Err(Refused::Corrupt { what, .. }) if what.contains("0197")));
    assert!(matches!(outcome.replies[1], Ok(Reply::Claimed(1))), "{outcome:?}");
    assert_eq!(outcome.commit.quarantined, []);
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
    let later = Timestamp(NOW.0 + 3_600_000_000);
    let outcome = run(&mut engine, vec![Command::Tick { limit: 10 }], later);
    assert_eq!(outcome.commit.quarantined.len(), 1);
    let ticked: Vec<_> = outcome.commit.tasks.iter().map(|change| change.task.id).collect();
    assert_eq!(ticked, [id(1)]);
    let outcome = run(&mut engine, vec![Command::Tick { limit: 10 }], later);
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
