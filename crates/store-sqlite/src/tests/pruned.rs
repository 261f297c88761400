//! Rows that pruning leaves: none of a removed task.

use rota_core::task::{self, Dependency, DependencyKey, DependencyState, Desired, OnFailure};
use rota_core::{Namespace, Timestamp};
use rota_store::engine::Engine;
use rota_store::{Backend, Command, ExpiredPage, Load, LogSize, PassedRows, Prune, Reply};

use super::{NOW, create, id};
use crate::Writer;

const TABLES: [&str; 9] =
    ["tasks", "payloads", "results", "secrets", "events", "aliases", "waits", "edges", "follow_ups"];

fn counts(engine: &mut Engine<Writer>) -> Vec<(&'static str, u32)> {
    let connection = engine.backend().connection();
    let count = |table| {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: u32 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        (table, count)
    };
    TABLES.map(count).into_iter().filter(|(_, count)| *count > 0).collect()
}

fn on(key: DependencyKey) -> Dependency {
    Dependency { key, on_failure: OnFailure::Fail, state: DependencyState::Missing, of_thread: false }
}

fn cancel(number: u128) -> Command {
    let command = task::Command::Update {
        priority: None,
        labels: None,
        desired: Some(Desired::Cancelled),
        reason: String::new(),
    };
    Command::Task { namespace: Namespace::new("n").unwrap(), id: id(number), command }
}

/// Each page reads the logs that it may remove, and at most one task more.
#[test]
fn expired_page_ends_at_its_bound_of_logs() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, _readers) = crate::open_connections(&folder.path().join("rota.db")).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    engine.run((0..50).map(|number| create(number, 10)).collect(), NOW).unwrap();
    engine.run((0..50).map(cancel).collect(), NOW).unwrap();
    let mut tasks = |logs| {
        let later = Timestamp(NOW.0 + 1);
        let page = ExpiredPage {
            ended_before: Some(later),
            after: None,
            passed: PassedRows::default(),
            left_before: later,
            limit: 200,
            logs,
        };
        let load = Load { expired: Some(page), ..Load::default() };
        let expired = engine.backend().load(&load).unwrap().expired;
        (expired.tasks.len(), expired.more_tasks)
    };
    // The log of each has two rows.
    assert_eq!(tasks(LogSize { rows: 20, bytes: u64::MAX }), (11, true));
    assert_eq!(tasks(LogSize { rows: u64::MAX, bytes: 0 }), (1, true));
    assert_eq!(tasks(LogSize { rows: u64::MAX, bytes: u64::MAX }), (50, false));
}

#[test]
fn pruned_tasks_leave_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, _readers) = crate::open_connections(&folder.path().join("rota.db")).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    let Command::Create(mut waiter) = create(1, 10) else { unreachable!() };
    waiter.task.dependencies =
        vec![on(DependencyKey::Id(id(0))), on(DependencyKey::Alias("missing".to_owned()))];
    waiter.task.target = rota_core::target::Target::Agent(rota_core::AgentName::new("absent").unwrap());
    waiter.secrets = Some(bytes::Bytes::from_static(b"sealed"));
    engine.run(vec![create(0, 10), Command::Create(waiter)], NOW).unwrap();
    let waits = counts(&mut engine).into_iter().find(|(table, _)| *table == "waits");
    assert_eq!(waits, Some(("waits", 2)));
    let batch = vec![cancel(1), cancel(0)];
    assert!(engine.run(batch, NOW).unwrap().replies.iter().all(Result::is_ok));
    let later = Timestamp(NOW.0 + 1);
    let prune = Prune { ended_before: Some(later), left_before: later, limit: 10 };
    let outcome = engine.run(vec![Command::Prune(prune)], later).unwrap();
    assert!(matches!(outcome.replies[0], Ok(Reply::Pruned { .. })));
    assert_eq!(counts(&mut engine), []);
}

/// Names that are not valid any more, as after a downgrade, on a whole page of each kind.
#[test]
fn damaged_names_stop_no_prune() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, _readers) = crate::open_connections(&folder.path().join("rota.db")).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    engine.run((0..5).map(|number| create(number, 10)).collect(), NOW).unwrap();
    engine.run((0..5).map(cancel).collect(), NOW).unwrap();
    let later = Timestamp(NOW.0 + 1);
    let prune = |limit| Command::Prune(Prune { ended_before: Some(later), left_before: later, limit });
    engine.run(vec![prune(10)], NOW).unwrap();
    for (sql, rows) in [
        ("UPDATE idempotency_keys SET namespace = 'N N' WHERE key IN ('0', '1', '2')", 3),
        (
            "INSERT INTO threads (namespace, name, idle, record)
             VALUES ('N N', 'a', 0, x'80'), ('N N', 'b', 0, x'80'), ('N N', 'c', 0, x'80'), ('n', 'd', 1, x'80')",
            4,
        ),
        (
            "INSERT INTO sessions (namespace, worker, epoch, open, ended, record) VALUES
             ('n', 'A A', 1, 0, 0, x'80'), ('n', 'B B', 1, 0, 0, x'80'), ('n', 'C C', 1, 0, 0, x'80'), ('n', 'd', 1, 0, 1, x'80')",
            4,
        ),
    ] {
        assert_eq!(engine.backend().connection().execute(sql, []).unwrap(), rows, "{sql}");
    }
    let (mut pruned, mut reported) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let outcome = engine.run(vec![prune(3)], NOW).unwrap();
        reported.extend(outcome.commit.undecodable.into_iter().map(|(what, _)| what));
        let [Ok(Reply::Pruned { count, more })] = outcome.replies[..] else {
            panic!("{:?}", outcome.replies)
        };
        pruned.push((count, more));
    }
    // The first page of each kind has only damaged rows, which stay. The second round finds nothing else.
    assert_eq!(pruned, [(0, true), (3, true), (1, false), (0, true), (0, false)]);
    let workers = ["A A", "B B", "C C"].map(|worker| format!("session of worker n/{worker}"));
    let keys = ["0", "1", "2"].map(|key| format!("idempotency key N N/{key}"));
    let threads = ["a", "b", "c"].map(|thread| format!("thread N N/{thread}"));
    assert_eq!(reported, [workers, keys, threads].concat());
}
