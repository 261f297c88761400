//! Errors of databases that cannot be opened.

use std::path::Path;
use std::sync::Arc;

use rota_core::Timestamp;
use rota_store::{Error, Store};
use rota_store_sqlite::{Options, Sqlite};
use rusqlite::Connection;

fn open(path: &Path) -> Result<Sqlite, Error> {
    let path = path.to_owned();
    rota_store_sqlite::open(Options { path, clock: Arc::new(|| Timestamp(1_750_000_000_000_000)), seed: 1 })
}

fn unavailable(error: Error) -> (String, &'static str) {
    match error {
        Error::Unavailable { message, hint } => (message, hint),
        other => panic!("{other}"),
    }
}

async fn made(path: &Path) {
    open(path).unwrap().close().await;
}

#[tokio::test]
async fn newer_schema_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    made(&path).await;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let (message, hint) = unavailable(open(&path).unwrap_err());
    assert!(message.contains("newer version of Rota"), "{message}");
    assert!(hint.contains("run that version or a later one"), "{hint}");
}

#[tokio::test]
async fn database_in_use_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    let first = open(&path).unwrap();
    let (message, hint) = unavailable(open(&path).unwrap_err());
    assert!(message.contains("in use by another process"), "{message}");
    assert!(hint.contains("stop the other process"), "{hint}");
    first.close().await;
    made(&path).await;
}

#[tokio::test]
async fn locked_database_reports_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    made(&path).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // A second reader may be opened, a second writer is rejected.
    let store = open(&path);
    let error = match store {
        Ok(store) => {
            let tick = rota_store::Command::tick(1);
            let error = store.apply(vec![tick]).await.unwrap_err();
            other.execute_batch("ROLLBACK").unwrap();
            let tick = rota_store::Command::tick(1);
            store.apply(vec![tick]).await.unwrap();
            error
        }
        Err(error) => error,
    };
    let (message, hint) = unavailable(error);
    assert!(message.contains("locked by another process"), "{message}");
    assert!(hint.contains("end the other process"), "{hint}");
}

#[tokio::test]
async fn missing_directory_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (message, hint) = unavailable(open(&folder.path().join("none").join("rota.db")).unwrap_err());
    assert!(message.contains("failed to open the lock file"), "{message}");
    assert!(hint.contains("check that its directory exists"), "{hint}");
}

#[tokio::test]
async fn foreign_file_is_rejected_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    std::fs::write(&path, "a letter to a friend\n".repeat(1000)).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("damaged or not a database")), "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("a letter"), "it is left alone");
}

#[tokio::test]
async fn damaged_database_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    made(&path).await;
    let mut bytes = std::fs::read(&path).unwrap();
    // All but the first page, which has the schema.
    for byte in &mut bytes[4096..] {
        *byte = 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let error = open(&path).unwrap_err();
    let Error::Corrupt(text) = &error else { panic!("{error}") };
    assert!(text.contains("restore it from a backup") || text.contains("damaged"), "{text}");
}
