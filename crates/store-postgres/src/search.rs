//! Full-text index of the tasks of a shard: words as a `tsvector` without positions, which no dictionary changes. Written by a connection
//! for reads, in transactions of its own, so that commits do not wait for it.

use std::collections::BTreeSet;

use deadpool_postgres::{Object, Transaction};
use rota_core::TaskKey;
use rota_store::Error;
use rota_store::codec::{signed, unsigned};
use rota_store::search::{ChangedTexts, INDEX_VERSION, IndexUpdate, SearchIndex, SearchQuery, of_namespace};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::Readers;
use crate::errors::Fault;
use crate::rows::{self, SHARD, get};

/// Materialized: only the index of the words can find the rows, however many are older. Of a word that most tasks have, all are read.
pub(crate) const SEARCH: &str =
    "WITH found AS MATERIALIZED (SELECT shard, key FROM search_tasks WHERE words @@ ($3::text)::tsquery)
    SELECT key FROM found WHERE shard = $1 AND key < $2 ORDER BY key DESC LIMIT $4";
pub(crate) const KEYS: &str =
    "SELECT key FROM search_tasks WHERE shard = $1 AND key > $2 ORDER BY key LIMIT $3";
/// A row for each entry, so that those of a page are bounded. An entry with a task is the first of its log, or the last of an ended one.
pub(crate) const CHANGED_TEXTS: &str = "SELECT part.revision, t.key, t.record FROM
        (SELECT revision, task, first FROM events WHERE shard = $1 AND revision > $2 ORDER BY revision LIMIT $3) AS part
    LEFT JOIN tasks AS t ON t.shard = $1 AND t.key = part.task AND (part.first = 1 OR (t.state BETWEEN 6 AND 8 AND part.first =
        (SELECT max(later.first) FROM events AS later WHERE later.shard = $1 AND later.task = part.task)))
    ORDER BY part.revision";
pub(crate) const POSITION: &str = "SELECT revision FROM search_position WHERE shard = $1 AND version = $2";
/// A compare-and-set: it changes no row if another process has moved the position.
pub(crate) const MOVE: &str =
    "UPDATE search_position SET revision = $4 WHERE shard = $1 AND version = $2 AND revision = $3";
pub(crate) const RESET: &str = "INSERT INTO search_position (shard, version, revision) VALUES ($1, $2, $3)
    ON CONFLICT (shard) DO UPDATE SET version = excluded.version, revision = excluded.revision";
pub(crate) const CLEAR: &str = "DELETE FROM search_tasks WHERE shard = $1";
pub(crate) const PUT: &str = "INSERT INTO search_tasks (shard, key, words)
    SELECT $1, new.key, new.words::tsvector FROM unnest($2::int8[], $3::text[]) AS new (key, words)
    ON CONFLICT (shard, key) DO UPDATE SET words = excluded.words";
pub(crate) const REMOVE: &str = "DELETE FROM search_tasks WHERE shard = $1 AND key = ANY ($2::int8[])";

/// A crash loses the last changes together with the position that has them.
const SETTINGS: &str = "SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = '5min'";

fn version() -> i32 {
    i32::try_from(INDEX_VERSION).unwrap_or(i32::MAX)
}

/// Returns the words as PostgreSQL reads them. They have no character that has a meaning within quotes.
fn quoted<'a>(words: impl Iterator<Item = &'a str>, between: &str) -> String {
    words.map(|word| format!("'{word}'")).collect::<Vec<_>>().join(between)
}

fn expression(query: &SearchQuery) -> String {
    let namespace = query.namespace.iter().map(|namespace| format!("'{}'", of_namespace(namespace)));
    let words = query.words.iter().map(|word| {
        let prefix = if word.is_prefix() { ":*" } else { "" };
        format!("'{}'{prefix}", word.text())
    });
    namespace.chain(words).collect::<Vec<_>>().join(" & ")
}

async fn update(transaction: &Transaction<'_>, update: &IndexUpdate) -> Result<bool, Fault> {
    transaction.batch_execute(SETTINGS).await?;
    let (version, through) = (version(), signed(update.through));
    match update.after {
        Some(after) => {
            let moved = transaction.prepare_cached(MOVE).await?;
            let params: [&(dyn ToSql + Sync); 4] = [&SHARD, &version, &signed(after), &through];
            if transaction.execute(&moved, &params).await? == 0 {
                return Ok(false);
            }
        }
        None => {
            transaction.execute(RESET, &[&SHARD, &version, &through]).await?;
            transaction.execute(CLEAR, &[&SHARD]).await?;
        }
    }
    let keys: Vec<i64> = update.tasks.iter().map(|task| signed(task.key.0)).collect();
    let words = update.tasks.iter().map(|task| quoted(task.words().iter().map(String::as_str), " "));
    let words: Vec<_> = words.collect();
    let put = transaction.prepare_cached(PUT).await?;
    transaction.execute(&put, &[&SHARD, &keys, &words]).await?;
    let removed: Vec<i64> = update.removed.iter().map(|key| signed(key.0)).collect();
    let remove = transaction.prepare_cached(REMOVE).await?;
    transaction.execute(&remove, &[&SHARD, &removed]).await?;
    Ok(true)
}

/// Makes a change in a transaction, which ends with the connection if the change fails.
async fn write(connection: &mut Object, change: &IndexUpdate) -> Result<bool, Fault> {
    let transaction = connection.build_transaction().read_only(false).start().await?;
    let is_made = update(&transaction, change).await?;
    if is_made {
        transaction.commit().await?;
    }
    Ok(is_made)
}

fn keys(rows: &[Row]) -> Result<Vec<TaskKey>, Fault> {
    rows.iter().map(|row| rows::key(row, 0)).collect()
}

impl SearchIndex for Readers {
    fn search(&self, query: &SearchQuery) -> Result<Vec<TaskKey>, Error> {
        let before: i64 = signed(query.before.map_or(u64::MAX, |key| key.0));
        let (limit, words): (i64, String) = (signed(query.limit), expression(query));
        self.with(async |loan| keys(&loan.query(SEARCH, &[&SHARD, &before, &words, &limit]).await?))
    }

    fn changed_texts(&self, after: u64, entries: usize) -> Result<ChangedTexts, Error> {
        let (after, limit): (i64, i64) = (signed(after), signed(entries));
        self.with(async |loan| {
            let rows = loan.query(CHANGED_TEXTS, &[&SHARD, &after, &limit]).await?;
            let mut changed = ChangedTexts { more: rows.len() == entries, ..ChangedTexts::default() };
            let mut seen = BTreeSet::new();
            for row in &rows {
                let revision = unsigned(get::<i64>(row, 0)?);
                changed.last = Some(revision);
                let Some(key) = get::<Option<i64>>(row, 1)?.map(|key| TaskKey(unsigned(key))) else {
                    continue;
                };
                if seen.insert(key) {
                    changed.tasks.extend(rows::decoded(key, row, 2)?.ok().map(|task| (revision, task)));
                }
            }
            Ok(changed)
        })
    }

    fn indexed_revision(&self) -> Result<Option<u64>, Error> {
        self.with(async |loan| {
            let rows = loan.query(POSITION, &[&SHARD, &version()]).await?;
            rows.first().map(|row| Ok(unsigned(get(row, 0)?))).transpose()
        })
    }

    fn update_index(&self, update: &IndexUpdate) -> Result<bool, Error> {
        self.with_connection(async |connection: &mut Object| write(connection, update).await)
    }

    fn indexed_keys(&self, after: TaskKey, limit: usize) -> Result<Vec<TaskKey>, Error> {
        let (after, limit): (i64, i64) = (signed(after.0), signed(limit));
        self.with(async |loan| keys(&loan.query(KEYS, &[&SHARD, &after, &limit]).await?))
    }
}
