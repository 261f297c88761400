//! Migration of databases with an older schema.

use rota_core::workflow::Workflow;
use rota_core::{Namespace, WorkflowId};
use rota_store::codec::{decode, encode};
use rota_store::engine::Engine;
use rota_store::{Error, Prune, Refused};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::{NOW, create, scoped};
use crate::migrate::{self, migrations};

#[test]
fn first_schema_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    let mut old = Connection::open(&path).unwrap();
    migrations().to_version(&mut old, 1).unwrap();
    old.execute_batch(
        r#"INSERT INTO routes (id, route) VALUES (7, '{"namespace":"n","target":{"worker":"w"}}');
           INSERT INTO keys (namespace, key, id) VALUES ('n', '1', x'00000000000000000000000000000001');
           INSERT INTO sessions (namespace, worker, epoch, open, record) VALUES ('n', 'w', 3, 0, x'80');"#,
    )
    .unwrap();
    drop(old);
    let (writer, readers) = crate::open_connections(&path).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    let outcome = engine.run(vec![create(0, 10), create(1, 10)], NOW).unwrap();
    // The key is known although its task is not; a new route has an unused id.
    assert!(matches!(outcome.replies[1], Err(Refused::KeyOutlived(_))), "{outcome:?}");
    let routes: Vec<_> =
        rota_store::Reader::snapshot(&readers).unwrap().routes.iter().map(|(id, _)| id.0).collect();
    assert_eq!(routes, [7, 8]);
    // Far in the future, keys orphaned before the migration are pruned.
    let later = rota_core::Timestamp(i64::MAX);
    let prune = Prune { ended_before: Some(later), left_before: later, limit: 10 };
    let outcome = engine.run(vec![rota_store::Command::Prune(prune)], NOW).unwrap();
    assert!(matches!(outcome.replies[0], Ok(rota_store::Reply::Pruned { count: 3, .. })), "{outcome:?}");
    assert!(rota_store::Reader::task(&readers, &scoped(0)).unwrap().is_some());
}

#[test]
fn full_disk_refuses_migration_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    let mut old = Connection::open(&path).unwrap();
    old.pragma_update(None, "journal_mode", "WAL").unwrap();
    migrations().to_version(&mut old, 4).unwrap();
    old.execute("INSERT INTO payloads (id, body) VALUES (x'01', zeroblob(5000000))", []).unwrap();
    let before = (schema(&old), std::fs::read(&path).unwrap());
    let pages: i64 = old.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let needed = 3 * 4096 * u64::try_from(pages).unwrap() + 1024 * 1024;
    let error = migrate::to_latest(&mut old, &path, |_| Some(needed - 1)).unwrap_err();
    let Error::Unavailable { message, hint } = error else { panic!("{error}") };
    assert!(message.contains(&format!("version 4 to 19 needs {needed} bytes")), "{message}");
    assert!(hint.contains("free space") && hint.contains("previous version"), "{hint}");
    assert_eq!((schema(&old), std::fs::read(&path).unwrap()), before);
    migrations().to_version(&mut old, 4).unwrap();
    migrate::to_latest(&mut old, &path, |_| Some(needed)).unwrap();
    assert_eq!(schema(&old).0, 19);
    let log = std::fs::metadata(folder.path().join("rota.db-wal")).unwrap();
    assert_eq!(log.len(), 0, "the log has returned its space");
}

#[test]
fn store_id_is_made_once_without_much_space() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    let mut old = Connection::open(&path).unwrap();
    migrations().to_version(&mut old, 5).unwrap();
    old.execute("INSERT INTO payloads (key, body) VALUES (1, zeroblob(5000000))", []).unwrap();
    migrate::to_latest(&mut old, &path, |_| Some(1024 * 1024)).unwrap();
    drop(old);
    let id = |path: &std::path::Path| {
        let (_writer, readers) = crate::open_connections(path).unwrap();
        rota_store::Reader::snapshot(&readers).unwrap().store
    };
    assert!(!id(&path).is_nil());
    assert_eq!(id(&path), id(&path), "it is kept");
    assert_ne!(id(&path), id(&folder.path().join("other.db")));
}

#[test]
fn workflows_that_were_run_again_are_marked() {
    let mut old = Connection::open_in_memory().unwrap();
    migrations().to_version(&mut old, 17).unwrap();
    let id = |number| WorkflowId(Uuid::from_u128(number));
    let workflow = |number, rerun_of: Option<u128>| Workflow {
        rerun_of: rerun_of.map(id),
        ..Workflow::new(id(number), Namespace::new("n").unwrap())
    };
    // The first one was run again twice, the third one once.
    for (key, one) in
        (1..).zip([workflow(1, None), workflow(2, Some(1)), workflow(3, Some(1)), workflow(4, Some(3))])
    {
        let insert = "INSERT INTO workflows (key, id, namespace, state, record) VALUES (?, ?, 'n', 7, ?)";
        old.execute(insert, params![key, one.id.0, encode(&one).unwrap()]).unwrap();
    }
    // One that cannot be read is no reason not to start.
    let damaged =
        "INSERT INTO workflows (key, id, namespace, state, record) VALUES (0, zeroblob(16), 'n', 7, X'00')";
    old.execute(damaged, []).unwrap();
    migrations().to_latest(&mut old).unwrap();
    let mut all = old.prepare("SELECT record FROM workflows WHERE key > 0 ORDER BY key").unwrap();
    let rows = all.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let reruns: Vec<_> = rows.map(|record| decode::<Workflow>(&record.unwrap()).unwrap().rerun).collect();
    assert_eq!(reruns, [Some(id(3)), None, Some(id(4)), None]);
}

#[test]
fn new_database_needs_no_space_check() {
    let mut connection = Connection::open_in_memory().unwrap();
    migrate::to_latest(&mut connection, std::path::Path::new(""), |_| Some(0)).unwrap();
    assert_eq!(schema(&connection).0, 19);
    // Neither does one that is up to date.
    migrate::to_latest(&mut connection, std::path::Path::new(""), |_| Some(0)).unwrap();
}

/// Returns the version of the schema, and its definition.
fn schema(connection: &Connection) -> (i64, Vec<String>) {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let mut tables =
        connection.prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name").unwrap();
    let tables = tables.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    (version, tables)
}
