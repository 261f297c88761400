//! Schema migrations, each in a transaction, under an advisory lock: several processes may start at a time.

use std::time::Duration;

use rota_core::workflow::Workflow;
use rota_store::codec::{encode, stored};
use rota_store::{Error, Reruns};
use tokio_postgres::Client;

use crate::errors::{Fault, unavailable};
use crate::rows::SHARD;
use crate::sql;

const MIGRATIONS: &[&str] = &[
    include_str!("migrations/001_begin.sql"),
    include_str!("migrations/002_groups.sql"),
    include_str!("migrations/003_history.sql"),
    include_str!("migrations/004_memberships.sql"),
    include_str!("migrations/005_fields.sql"),
    include_str!("migrations/006_fields.sql"),
    include_str!("migrations/007_reruns.sql"),
    include_str!("migrations/008_search.sql"),
    include_str!("migrations/009_fields.sql"),
];

/// Version with which workflows that were run again are marked.
const RERUNS: usize = 7;
/// Workflows that are read at a time for that.
const PAGE: i64 = 1000;

/// Key of the advisory lock: `rota` in ASCII.
const LOCK: i64 = 0x726f_7461;

/// Time for all migrations, of a large database too.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// Returns the newest version of the schema that this program knows.
pub(crate) fn latest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Migrates the schema to the newest version.
pub(crate) async fn to_latest(client: &Client) -> Result<(), Fault> {
    let migrated = locked(client);
    tokio::time::timeout(MIGRATION_TIMEOUT, migrated).await.unwrap_or(Err(Fault::Timeout))
}

/// Whether the database has the tables of a store, of any version.
pub(crate) async fn is_store(client: &Client) -> Result<bool, Fault> {
    Ok(client.query_one("SELECT to_regclass('rota.documents') IS NOT NULL", &[]).await?.try_get(0)?)
}

/// Refuses a schema of a newer version.
pub(crate) async fn refuse_newer(client: &Client) -> Result<(), Fault> {
    if applied(client).await? > latest() { Err(Fault::Store(too_new())) } else { Ok(()) }
}

/// Returns the version of the schema.
async fn applied(client: &Client) -> Result<i32, Fault> {
    let row = client.query_one("SELECT coalesce(max(version), 0) FROM migrations", &[]).await?;
    Ok(row.try_get(0)?)
}

async fn locked(client: &Client) -> Result<(), Fault> {
    client.batch_execute("SET lock_timeout = '60s'").await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let migrated = migrate(client, MIGRATIONS).await;
    let unlocked = client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await;
    migrated?;
    unlocked?;
    Ok(())
}

async fn migrate(client: &Client, migrations: &[&str]) -> Result<(), Fault> {
    // Creating a schema that exists needs a right that its user may lack.
    let exists = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'rota')";
    if !client.query_one(exists, &[]).await?.try_get::<_, bool>(0)? {
        client.batch_execute("CREATE SCHEMA rota").await?;
    }
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS migrations (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
    let applied = usize::try_from(applied(client).await?).unwrap_or(0);
    if applied > migrations.len() {
        return Err(Fault::Store(too_new()));
    }
    for (index, sql) in migrations.iter().enumerate().skip(applied) {
        let version = index + 1;
        tracing::info!(version, "migrating the schema of the database");
        client.batch_execute(&format!("BEGIN; {sql};")).await?;
        if version == RERUNS {
            depose(client).await?;
            mark_reruns(client).await?;
        }
        client.batch_execute(&format!("INSERT INTO migrations (version) VALUES ({version}); COMMIT")).await?;
    }
    Ok(())
}

/// Takes the shard from its owner, whose commits wait for the end of this transaction and then fail. One of an earlier version would
/// write records that it has in memory, or reads, without what the migration adds to them.
async fn depose(client: &Client) -> Result<(), Fault> {
    let row = client.query_one(sql::OWNER, &[&SHARD]).await?;
    if let Some(owner) = row.try_get::<_, Option<String>>(1)? {
        tracing::warn!(
            owner,
            "ending the owner of the database, of an earlier version: the migration writes records"
        );
    }
    client.execute(sql::DEPOSE, &[&SHARD]).await?;
    Ok(())
}

/// Names the newest rerun in each workflow that was run again: earlier versions named only the earlier workflow, in the rerun.
async fn mark_reruns(client: &Client) -> Result<(), Fault> {
    let page = "SELECT key, record FROM workflows WHERE shard = $1 AND key > $2 ORDER BY key LIMIT $3";
    let (mut reruns, mut after) = (Reruns::default(), i64::MIN);
    loop {
        let rows = client.query(page, &[&SHARD, &after, &PAGE]).await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get(0)?;
        for row in &rows {
            reruns.see(stored(row.try_get(1)?));
        }
    }
    let unreadable = reruns.unreadable();
    if unreadable > 0 {
        tracing::warn!(unreadable, "failed to decode workflows, which name no rerun");
    }
    let find = "SELECT key, record FROM workflows WHERE shard = $1 AND namespace = $2 AND id = $3";
    for ((namespace, earlier), rerun) in reruns.newest() {
        let found = client.query_opt(find, &[&SHARD, &namespace.as_str(), &earlier.0]).await?;
        let Some(row) = found else { continue };
        let Ok(workflow) = stored::<Workflow>(row.try_get(1)?) else { continue };
        let record = encode(&Workflow { rerun: Some(rerun), ..workflow })?;
        let write = "UPDATE workflows SET record = $3 WHERE shard = $1 AND key = $2";
        client.execute(write, &[&SHARD, &row.try_get::<_, i64>(0)?, &record]).await?;
    }
    Ok(())
}

pub(crate) fn too_new() -> Error {
    unavailable(
        "the database has the schema of a newer version of Rota".to_owned(),
        "run that version or a later one, or restore a backup from before the upgrade",
    )
}
