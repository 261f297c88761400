//! Migration of databases with an older schema.

use rota_store::engine::Engine;
use rota_store::{Prune, Refused};
use rusqlite::Connection;

use super::{NOW, create, scoped};
use crate::open::migrations;

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
