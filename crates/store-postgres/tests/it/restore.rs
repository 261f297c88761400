//! Backups by the documented commands: one of an older schema is restored over a newer one, and upgraded again.

use std::path::Path;
use std::process::{Command, Output};

use rota_store::{Filter, Store};
use rota_store_postgres::Target;
use rota_testkit::postgres::PostgresServer;

use crate::doubt::{create, open};

/// Executes the commands for backups in the documentation that begin with these programs, with success.
fn documented(programs: &[&str], database: &str, folder: &Path) {
    let output = execute(programs, database, folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn execute(programs: &[&str], database: &str, folder: &Path) -> Output {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/postgresql.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n## Backup\n").unwrap();
    let begins = |line: &&str| programs.iter().any(|program| line.starts_with(&format!("{program} ")));
    let script: Vec<&str> = section.lines().filter(begins).collect();
    assert_eq!(script.len(), programs.len(), "{script:?}");
    let dump = PostgresServer::shared().program("pg_dump", database);
    let path = format!("{}:/usr/bin:/bin", Path::new(dump.get_program()).parent().unwrap().display());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script.join("\n")).env("PATH", path).env("URL", database).current_dir(folder);
    shell.output().unwrap()
}

/// Creates a database of a store with one task.
async fn with_one_task(server: &PostgresServer) -> (String, Target) {
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let store = open(&target).await;
    store.apply(vec![create(0)]).await.unwrap();
    store.close().await;
    (database, target)
}

/// Returns the number of tasks.
async fn tasks(target: &Target) -> usize {
    let store = open(target).await;
    let page = store.list(Filter { limit: 10, ..Filter::default() }).await.unwrap();
    store.close().await;
    page.tasks.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_of_older_schema_is_upgraded_again() {
    let server = PostgresServer::shared();
    let (database, target) = with_one_task(server).await;
    let folder = tempfile::tempdir().unwrap();
    // As the first version has left it.
    let downgrade = "DROP TABLE rota.group_members, rota.search_tasks, rota.search_position; ALTER TABLE rota.shards DROP COLUMN reached;
        DROP FUNCTION rota.acquire(integer, uuid, integer); DELETE FROM rota.migrations WHERE version > 1";
    server.sql(&database, downgrade).unwrap();
    documented(&["pg_dump"], &database, folder.path());
    let upgraded = open(&target).await;
    upgraded.apply(vec![create(1)]).await.unwrap();
    upgraded.close().await;
    drop(upgraded);
    let by_older = server.sql(&database, "SELECT * FROM rota.acquire(0, gen_random_uuid())");
    assert!(by_older.is_err(), "a replica of an older version takes the database");
    documented(&["pg_restore", "psql"], &database, folder.path());
    assert_eq!(tasks(&target).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_dump_loses_nothing() {
    let server = PostgresServer::shared();
    let (database, target) = with_one_task(server).await;
    let folder = tempfile::tempdir().unwrap();
    // The server refuses a role that it does not know, as it does settings of a newer version.
    server
        .sql(&database, "CREATE ROLE unknown_later; GRANT SELECT ON rota.commits TO unknown_later")
        .unwrap();
    documented(&["pg_dump"], &database, folder.path());
    server.sql(&database, "DROP OWNED BY unknown_later; DROP ROLE unknown_later").unwrap();
    let refused = execute(&["pg_restore", "psql"], &database, folder.path());
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("unknown_later"), "{error}");
    let dump = std::fs::File::options().write(true).open(folder.path().join("rota.dump")).unwrap();
    dump.set_len(dump.metadata().unwrap().len() - 100).unwrap();
    let damaged = execute(&["pg_restore", "psql"], &database, folder.path());
    let error = String::from_utf8_lossy(&damaged.stderr);
    assert!(!damaged.status.success() && !error.contains("unknown_later"), "{error}");
    assert_eq!(tasks(&target).await, 1);
}
