//! Schema migrations of a database file, in one transaction: the list of them, and the check of the disk space they need.

use std::path::Path;

use rota_core::task::{Dependency, Task};
use rota_core::workflow::Workflow;
use rota_store::{Error, Reruns};
use rusqlite::{Connection, Transaction, params};
use rusqlite_migration::{HookError, HookResult, M, Migrations};

use crate::open::{database_bytes, explain};
use crate::sql;
use rota_store::codec::{encode, stored};

/// Free space that a migration needs, as a multiple of the database's size. One that rewrites every row adds up to 2.9
/// times the size: 1.9 in the log (new tables, and the freed pages of the old ones), and 0.9 by which the file grows.
const SPACE_FACTOR: u64 = 3;
/// Last schema version whose migration rewrites every row. Later ones need the fixed part only.
const LAST_REWRITE: i64 = 5;
/// Free space for the fixed part: tables and indexes of a database that is almost empty.
const MIN_SPACE: u64 = 1024 * 1024;

pub(crate) fn migrations() -> Migrations<'static> {
    Migrations::new(vec![
        M::up(include_str!("migrations/001_begin.sql")),
        M::up(include_str!("migrations/002_expiry.sql")),
        M::up(include_str!("migrations/003_pending.sql")),
        M::up(include_str!("migrations/004_shards.sql")),
        M::up_with_hook(include_str!("migrations/005_keys.sql"), add_edges),
        M::up(include_str!("migrations/006_away.sql")),
        M::up(include_str!("migrations/007_store_id.sql")),
        M::up(include_str!("migrations/008_artifacts.sql")),
        M::up(include_str!("migrations/009_cool_downs.sql")),
        M::up(include_str!("migrations/010_threads.sql")),
        M::up(include_str!("migrations/011_accounts.sql")),
        M::up(include_str!("migrations/012_documents.sql")),
        M::up(include_str!("migrations/013_workflows.sql")),
        M::up(include_str!("migrations/014_groups.sql")),
        M::up(include_str!("migrations/015_memberships.sql")),
        M::up(include_str!("migrations/016_fields.sql")),
        M::up(include_str!("migrations/017_fields.sql")),
        M::up_with_hook(include_str!("migrations/018_reruns.sql"), mark_reruns),
        M::up(include_str!("migrations/019_fields.sql")),
    ])
}

/// Adds the edges of tasks that have not ended: earlier versions removed an edge when the task that was needed ended, and
/// its result could be pruned before the other one ran.
fn add_edges(transaction: &Transaction<'_>) -> HookResult {
    let mut tasks = transaction.prepare("SELECT key, record FROM tasks WHERE state NOT IN (6, 7, 8)")?;
    let mut add = transaction
        .prepare("INSERT OR IGNORE INTO edges SELECT key, ?3 FROM tasks WHERE namespace = ?1 AND id = ?2")?;
    let mut rows = tasks.query([])?;
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        // One that cannot be decoded is reported when it is met.
        let Ok(task) = stored::<Task>(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?) else {
            continue;
        };
        for id in task.dependencies.iter().filter_map(Dependency::id) {
            add.execute(params![task.namespace.as_str(), id.0, key])?;
        }
    }
    Ok(())
}

/// Names the newest rerun in each workflow that was run again: earlier versions named only the earlier workflow, in the rerun.
fn mark_reruns(transaction: &Transaction<'_>) -> HookResult {
    let mut reruns = Reruns::default();
    let mut all = transaction.prepare("SELECT record FROM workflows ORDER BY key")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        reruns.see(stored(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?));
    }
    let unreadable = reruns.unreadable();
    if unreadable > 0 {
        tracing::warn!(unreadable, "failed to decode workflows, which name no rerun");
    }
    let mut find =
        transaction.prepare("SELECT key, record FROM workflows WHERE namespace = ?1 AND id = ?2")?;
    let mut write = transaction.prepare("UPDATE workflows SET record = ?2 WHERE key = ?1")?;
    for ((namespace, earlier), rerun) in reruns.newest() {
        let mut found = find.query(params![namespace.as_str(), earlier.0])?;
        let Some(row) = found.next()? else { continue };
        let (key, record): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let Ok(workflow) = stored::<Workflow>(&record) else { continue };
        let record = encode(&Workflow { rerun: Some(rerun), ..workflow });
        write.execute(params![key, record.map_err(|error| HookError::Hook(error.to_string()))?])?;
    }
    Ok(())
}

/// Migrates the schema to the newest version, or changes nothing. `free` returns the free bytes of the disk with a path, if known.
pub(crate) fn to_latest(
    connection: &mut Connection,
    path: &Path,
    free: impl FnOnce(&Path) -> Option<u64>,
) -> Result<(), Error> {
    let migrations = migrations();
    let pending = migrations.pending_migrations(connection).map_err(|error| explain_migration(&error))?;
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let from = number("user_version").map_err(|error| explain(&error))?;
    if pending <= 0 || from == 0 {
        return migrations.to_latest(connection).map_err(|error| explain_migration(&error));
    }
    let to = from + i64::from(pending);
    let bytes = database_bytes(connection)?;
    let rewritten = if from < LAST_REWRITE { bytes } else { 0 };
    let needed = rewritten.saturating_mul(SPACE_FACTOR).saturating_add(MIN_SPACE);
    // A disk that fills up after the commit, while the log is copied into the file, would leave a migrated database
    // that neither version can open.
    if let Some(free) = free(path).filter(|free| *free < needed) {
        return Err(Error::Unavailable {
            message: format!(
                "migrating the database from schema version {from} to {to} needs {needed} bytes of free disk space, \
                 but {free} are available"
            ),
            hint: "free space or enlarge the volume, then start again; nothing was changed, and the previous version of Rota can still open the database",
        });
    }
    tracing::info!(
        from,
        to,
        bytes,
        "migrating the database schema; this takes minutes for a database of gigabytes"
    );
    migrations.to_latest(connection).map_err(|error| explain_migration(&error))?;
    // Returns the space of the log, which is larger than the database by now.
    connection.query_row(sql::TRUNCATE_LOG, [], |_| Ok(())).map_err(|error| explain(&error))?;
    tracing::info!(from, to, "migrated the database schema");
    Ok(())
}

fn explain_migration(error: &rusqlite_migration::Error) -> Error {
    match error {
        rusqlite_migration::Error::MigrationDefinition(
            rusqlite_migration::MigrationDefinitionError::DatabaseTooFarAhead,
        ) => Error::Unavailable {
            message: "the database has the schema of a newer version of Rota".to_owned(),
            hint: "run that version or a later one, or restore a backup from before the upgrade",
        },
        rusqlite_migration::Error::RusqliteError { err, .. } => explain(err),
        other => Error::Corrupt(other.to_string()),
    }
}
