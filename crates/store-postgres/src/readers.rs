//! Concurrent reads, from a bounded pool of connections.

use std::fs::File;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::{
    HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use rota_core::task::{Event, Task};
use rota_core::{RouteId, TaskKey, Timestamp};
use rota_store::codec::{decode, signed, stored, unsigned};
use rota_store::{
    ArtifactsKey, ArtifactsKeys, ArtifactsRow, Budget, DatabaseStatus, Document, DocumentKey, Documents,
    DocumentsPage, Error, FeedEntry, FeedPage, Filter, NameKey, Page, Reader, Replica, ScopedId,
    SealedSecrets, Snapshot, StoreSpace, StoreStats, Stored, TaskBody, Thread, WorkflowQuery, WorkflowRows,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::errors::{Fault, unavailable};
use crate::rows::{self, SHARD, get, route_number};
use crate::session::{ANSWER_TIMEOUT, Connector, SNAPSHOT_TIMEOUT, bounded, within};
use crate::target::Target;
use crate::{Shared, documents, list, snapshot, sql, status, workflows};

/// Rows of a log, and about their bytes, that one statement returns.
const LOG_ROWS: usize = 256;
const LOG_BYTES: i64 = 1 << 20;
/// Time for a connection of the pool.
const POOL_TIMEOUT: Duration = Duration::from_secs(10);

/// Pool of connections that only read.
pub struct Readers {
    pool: Pool,
    count: usize,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Connection that is borrowed from the pool.
pub(crate) struct Loan(Object);

impl Loan {
    pub(crate) async fn query(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let statement = self.0.prepare_cached(sql).await?;
        Ok(self.0.query(&statement, params).await?)
    }

    /// Executes reads on one moment.
    pub(crate) async fn at_one_moment<T>(
        &self,
        read: impl AsyncFnOnce(&Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.0.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let found = read(self).await;
        self.0.batch_execute("COMMIT").await?;
        found
    }
}

impl Readers {
    pub(crate) fn new(target: &Target, count: usize, shared: Arc<Shared>) -> Result<Self, Error> {
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let connector = Connector { target: target.clone(), application: "rota-reader" };
        let begin = connector.begin();
        let manager = Manager::from_connect(target.config("rota-reader"), connector, manager);
        let pool = Pool::builder(manager)
            .max_size(count)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(POOL_TIMEOUT))
            .wait_timeout(Some(POOL_TIMEOUT))
            .post_create(begin)
            .build()
            .map_err(|error| unavailable(format!("failed to set up connections: {error}"), "see the log"))?;
        Ok(Self { pool, count, shared })
    }

    /// Executes something that is not repeated, and may take long. After a failure the connection is not used again.
    pub(crate) fn with_connection<T>(
        &self,
        call: impl AsyncFn(&mut Object) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.shared
            .block_on(async {
                let mut connection = bounded(async { self.pool.get().await.map_err(pool_fault) }).await?;
                let outcome = within(SNAPSHOT_TIMEOUT, call(&mut connection)).await;
                if outcome.is_err() {
                    drop(Object::take(connection));
                }
                outcome
            })
            .map_err(Fault::into_error)
    }

    /// Executes a read. One whose connection was lost is repeated, once.
    pub(crate) fn with<T>(&self, read: impl AsyncFn(&Loan) -> Result<T, Fault>) -> Result<T, Error> {
        self.with_limit(ANSWER_TIMEOUT, read)
    }

    /// Executes a read that may take longer than others.
    fn with_limit<T>(
        &self,
        limit: Duration,
        read: impl AsyncFn(&Loan) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.shared.block_on(async {
            for last in [false, true] {
                let fault = match bounded(async { self.pool.get().await.map_err(pool_fault) }).await {
                    Ok(loan) => {
                        let loan = Loan(loan);
                        match within(limit, read(&loan)).await {
                            Ok(value) => return Ok(value),
                            Err(fault) => {
                                if fault.is_lost() {
                                    // Not back to the pool: an answer may be outstanding, or a transaction open.
                                    drop(Object::take(loan.0));
                                }
                                fault
                            }
                        }
                    }
                    Err(fault) => fault,
                };
                if last || !fault.is_lost() {
                    return Err(fault.into_error());
                }
            }
            Err(Error::Closed)
        })
    }

    /// Returns an id of the database, which a copy of it elsewhere does not have.
    pub(crate) fn database(&self) -> Result<String, Error> {
        self.with(async |loan| {
            let rows = loan.query(sql::DATABASE, &[]).await?;
            let (system, oid): (i64, u32) = match rows.first() {
                Some(row) => (get(row, 0)?, get(row, 1)?),
                None => (0, 0),
            };
            Ok(format!("postgresql-{system}-{oid}"))
        })
    }
}

fn pool_fault(error: PoolError) -> Fault {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            Fault::Database(error)
        }
        PoolError::Timeout(_) => Fault::Timeout,
        other => Fault::Store(unavailable(other.to_string(), "see the log")),
    }
}

impl Reader for Readers {
    fn concurrency(&self) -> usize {
        self.count
    }

    fn task(&self, (namespace, id): &ScopedId) -> Result<Option<Task>, Error> {
        self.with(async |loan| {
            rows::named(loan.query(sql::TASK_BY_ID, &[&SHARD, &namespace.as_str(), &id.0]).await?.first())
        })
    }

    fn newest(&self, (namespace, alias): &NameKey) -> Result<Option<Task>, Error> {
        self.with(async |loan| {
            rows::named(loan.query(sql::TASK_BY_ALIAS, &[&SHARD, &namespace.as_str(), alias]).await?.first())
        })
    }

    fn thread(&self, (namespace, name): &NameKey) -> Result<Option<Thread>, Error> {
        self.with(async |loan| {
            let rows = loan.query(sql::THREAD, &[&SHARD, &namespace.as_str(), name]).await?;
            let thread: Option<Stored<Thread>> = rows.first().map(|row| rows::record(row, 0)).transpose()?;
            thread.transpose().map_err(|reason| Error::Corrupt(reason).into())
        })
    }

    fn threads(&self, after: &NameKey, limit: usize) -> Result<Vec<(NameKey, Thread)>, Error> {
        let limit: i64 = signed(limit);
        self.with(async |loan| {
            let rows = loan.query(sql::THREADS, &[&SHARD, &after.0.as_str(), &after.1, &limit]).await?;
            // One that cannot be decoded is missing from the list, and does not hide the others.
            let decoded = |row: &Row| {
                let (name, thread) = rows::thread(row).ok()?.ok()?;
                Some((name, thread.ok()?))
            };
            Ok(rows.iter().filter_map(decoded).collect())
        })
    }

    fn workflows(&self, query: &WorkflowQuery) -> Result<WorkflowRows, Error> {
        self.with(async |loan| workflows::query(loan, query).await)
    }

    fn document(&self, key: &DocumentKey) -> Result<Option<Document>, Error> {
        self.with(async |loan| documents::get(loan, key).await)
    }

    fn documents(&self, page: &DocumentsPage) -> Result<Documents, Error> {
        self.with(async |loan| documents::page(loan, page).await)
    }

    fn bodies(&self, body: TaskBody, keys: &[TaskKey], bytes: u64) -> Result<Vec<(TaskKey, Bytes)>, Error> {
        let sql = match body {
            TaskBody::Payload => sql::LOAD_PAYLOADS,
            TaskBody::Result => sql::RESULTS,
        };
        let keys: Vec<i64> = keys.iter().map(|key| signed(key.0)).collect();
        let bytes: i64 = signed(bytes);
        self.with(async |loan| {
            let rows = loan.query(sql, &[&SHARD, &keys, &bytes]).await?;
            rows.iter().map(|row| Ok((rows::key(row, 0)?, rows::bytes(row, 1)?))).collect()
        })
    }

    fn artifacts(&self, keys: ArtifactsKeys, limit: usize) -> Result<Vec<ArtifactsRow>, Error> {
        let (from, to) = keys.into_inner();
        let (first, last): (i64, i64) = (signed(from.task.0), signed(to.task.0));
        let (first_attempt, last_attempt) = (i64::from(from.attempt), i64::from(to.attempt));
        let limit: i64 = signed(limit);
        self.with(async |loan| {
            let params: &[&(dyn ToSql + Sync)] =
                &[&SHARD, &first, &first_attempt, &last, &last_attempt, &limit];
            let rows = loan.query(sql::ARTIFACTS, params).await?;
            let list = |row: &Row| {
                let attempt = u32::try_from(get::<i64>(row, 1)?).unwrap_or(0);
                Ok((ArtifactsKey { task: rows::key(row, 0)?, attempt }, rows::bytes(row, 2)?))
            };
            rows.iter().map(list).collect()
        })
    }

    fn secrets(&self, after: TaskKey, limit: usize) -> Result<Vec<SealedSecrets>, Error> {
        let (after, limit): (i64, i64) = (signed(after.0), signed(limit));
        self.with(async |loan| {
            let rows = loan.query(sql::SEALED, &[&SHARD, &after, &limit]).await?;
            rows.iter().map(rows::sealed).collect()
        })
    }

    fn list(&self, filter: &Filter) -> Result<Page, Error> {
        self.with(async |loan| list::page(loan, filter).await)
    }

    fn events(&self, key: TaskKey, after: u64, budget: Budget) -> Result<Vec<Event>, Error> {
        let key: i64 = signed(key.0);
        self.with(async |loan| {
            let (mut budget, mut events) = (budget, Vec::new());
            let mut wanted: i64 = signed(after.saturating_add(1));
            let limit: i64 = signed(LOG_ROWS);
            loop {
                let rows = loan.query(sql::EVENTS, &[&SHARD, &key, &wanted, &limit, &LOG_BYTES]).await?;
                let mut last: u64 = 0;
                let mut bytes = 0;
                for row in &rows {
                    let body: &[u8] = get(row, 1)?;
                    bytes += i64::try_from(body.len()).unwrap_or(i64::MAX);
                    for event in decode::<Vec<Event>>(body)? {
                        last = event.log_seq;
                        if event.log_seq <= after {
                            continue;
                        }
                        let is_last = budget.spend(from_ref(&event));
                        events.push(event);
                        if is_last {
                            return Ok(events);
                        }
                    }
                }
                if rows.len() < LOG_ROWS && bytes < LOG_BYTES {
                    return Ok(events);
                }
                wanted = signed(last.saturating_add(1));
                // An entry behind the last one, and not the row that has the last one.
                if rows.last().map(|row| get::<i64>(row, 0)).transpose()?.is_none_or(|first| first >= wanted)
                {
                    return Ok(events);
                }
            }
        })
    }

    fn feed(&self, after: u64, budget: Budget) -> Result<FeedPage, Error> {
        self.with(async |loan| {
            let (mut budget, mut page) = (budget, FeedPage::default());
            let mut after: i64 = signed(after);
            loop {
                let limit: i64 = signed(budget.entries.clamp(1, LOG_ROWS));
                let rows = loan.query(sql::FEED, &[&SHARD, &after, &limit, &LOG_BYTES]).await?;
                let mut bytes = 0;
                for row in &rows {
                    let (revision, key) = (get::<i64>(row, 0)?, rows::key(row, 1)?);
                    let task = rows::decoded(key, row, 2)?.ok();
                    let body: &[u8] = get(row, 3)?;
                    bytes += i64::try_from(body.len()).unwrap_or(i64::MAX);
                    // Entries that cannot be decoded are missing, and do not hide those of others.
                    let events: Vec<Event> = decode(body).unwrap_or_default();
                    page.more = budget.spend(&events);
                    page.entries.push(FeedEntry { revision: unsigned(revision), task, events });
                    after = revision;
                    if page.more {
                        return Ok(page);
                    }
                }
                if signed(rows.len()) < limit && bytes < LOG_BYTES {
                    return Ok(page);
                }
            }
        })
    }

    fn revision(&self) -> Result<u64, Error> {
        self.with(async |loan| {
            let rows = loan.query(sql::REVISION, &[&SHARD]).await?;
            rows.first().map_or(Ok(0), |row| Ok(unsigned(get(row, 0)?)))
        })
    }

    fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error> {
        let route = route_number(route);
        self.with(async |loan| {
            let rows = loan.query(sql::AHEAD, &[&SHARD, &route, &rank]).await?;
            rows.first().map_or(Ok(0), |row| Ok(unsigned(get(row, 0)?)))
        })
    }

    fn stats(&self, routes: &[RouteId]) -> Result<StoreStats, Error> {
        let wanted: Vec<i32> = routes.iter().map(|route| route_number(*route)).collect();
        self.with(async |loan| {
            let pending = loan.query(sql::PENDING, &[&SHARD]).await?;
            let pending = pending.first().map_or(Ok::<_, Fault>(0), |row| Ok(unsigned(get(row, 0)?)))?;
            let mut next = Vec::new();
            for row in &loan.query(sql::HEADS, &[&SHARD, &wanted]).await? {
                let ready_at: Option<Timestamp> =
                    stored::<Task>(get(row, 1)?).ok().and_then(|task| task.ready_at);
                next.extend(ready_at.map(|at| Ok::<_, Fault>((rows::route(row, 0)?, at))).transpose()?);
            }
            Ok(StoreStats { pending, next })
        })
    }

    fn snapshot(&self) -> Result<Snapshot, Error> {
        self.with_limit(SNAPSHOT_TIMEOUT, async |loan| {
            let mut prepared = snapshot::Prepared::new();
            for sql in sql::COLD.iter().chain(&[sql::NEXT_WORKFLOW_DUE, sql::NEXT_STEP_DUE]) {
                prepared.insert(*sql, loan.0.prepare_cached(sql).await?);
            }
            snapshot::read(&loan.0, &prepared, true).await
        })
    }

    fn replicas(&self) -> Result<Vec<Replica>, Error> {
        self.with(async |loan| {
            let replica = |row: &Row| {
                let lease = u64::try_from(get::<i64>(row, 4)?).unwrap_or(0);
                Ok(Replica {
                    name: get(row, 0)?,
                    version: get(row, 1)?,
                    address: get(row, 2)?,
                    owner: get(row, 3)?,
                    lease: Duration::from_millis(lease),
                })
            };
            loan.query(sql::REPLICAS, &[&SHARD]).await?.iter().map(replica).collect()
        })
    }

    fn database_status(&self) -> Result<Option<DatabaseStatus>, Error> {
        self.with(async |loan| status::read(loan).await.map(Some))
    }

    /// The room of the database's volume is not known to its clients.
    fn space(&self) -> Result<Option<StoreSpace>, Error> {
        Ok(None)
    }

    fn backup(&self) -> Result<File, Error> {
        let message = "a PostgreSQL store is backed up with the tools of PostgreSQL".to_owned();
        Err(unavailable(message, "use pg_dump, or a base backup; docs/postgresql.md has the commands"))
    }
}
