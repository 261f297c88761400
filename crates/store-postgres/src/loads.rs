//! Reads of the writer: the rows that a batch needs and memory lacks, in one round trip, outside of any transaction. Only a
//! prune reads page after page.

use bytes::Bytes;
use futures::try_join;
use rota_core::{RouteId, TaskKey, Timestamp};
use rota_store::codec::{signed, unsigned};
use rota_store::snapshot::Read;
use rota_store::{
    ExpiredPage, ExpiredPlace, ExpiredRow, ExpiredRows, IdempotencyRow, Load, Loaded, LogSize, LogsPage,
    NameKey, ReadyRow, ScopedId, THREAD_TTL, TaskRow,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::errors::Fault;
use crate::floors::Floors;
use crate::rows::{self, SHARD, get, route_number};
use crate::session::Session;
use crate::{documents, sql, workflows};

/// Ended tasks that are read at a time, with the sizes of their logs.
const PRUNE_PAGE: usize = 100;

/// Reads everything that a load names. Statements without keys are not sent.
pub(crate) async fn load(session: &Session, load: &Load, floors: &mut Floors) -> Result<Loaded, Fault> {
    let loader = Loader { session };
    let known: &Floors = floors;
    let (
        ids,
        tasks,
        payloads,
        results,
        secrets,
        dependencies,
        aliases,
        idempotency_keys,
        threads,
        documents,
        sessions,
        dependents,
        waits,
        ready,
        due,
        workflows,
    ) = try_join!(
        loader.scoped(sql::LOAD_IDS, &load.ids, rows::task),
        loader.tasks(&load.tasks),
        loader.payloads(load),
        loader.bodies(sql::LOAD_RESULTS, &load.results),
        loader.bodies(sql::LOAD_SECRETS, &load.secrets),
        loader.scoped(sql::LOAD_DEPENDENCIES, &load.dependencies, rows::state),
        loader.named(sql::LOAD_ALIASES, &load.aliases, rows::state),
        loader.named(sql::LOAD_KEYS, &load.idempotency_keys, idempotency_row),
        loader.named(sql::LOAD_THREADS, &load.threads, |row| rows::record(row, 1)),
        documents::load(session, &load.documents),
        loader.sessions(load),
        loader.dependents(load),
        loader.waits(load),
        loader.ready(load, known),
        loader.due(load, known),
        workflows::load(session, &load.workflows),
    )?;
    for (page, rows) in load.ready.iter().zip(&ready) {
        floors.read(page, rows);
    }
    let waiting = loader.waiting(&load.waiting).await?;
    let logs = match &load.logs {
        Some(page) => loader.within(page).await?,
        None => 0,
    };
    let expired = match &load.expired {
        Some(page) => loader.expired(page).await?,
        None => ExpiredRows::default(),
    };
    Ok(Loaded {
        ids,
        tasks,
        payloads,
        results,
        secrets,
        waiting,
        dependencies,
        aliases,
        dependents,
        idempotency_keys,
        threads,
        documents,
        waits,
        sessions,
        ready,
        due,
        expired,
        logs,
        workflows,
    })
}

struct Loader<'a> {
    session: &'a Session,
}

fn keys(keys: &[TaskKey]) -> Vec<i64> {
    keys.iter().map(|key| signed(key.0)).collect()
}

fn idempotency_row(row: &Row) -> Result<IdempotencyRow, Fault> {
    let task = match get::<Option<i64>>(row, 1)? {
        Some(_) => Some(rows::task(row)?),
        None => None,
    };
    Ok(IdempotencyRow { id: rows::id(row, 5)?, task })
}

/// Pairs rows with the keys that their first column numbers from 1.
pub(crate) fn pair<K: Clone, T>(
    keys: &[K],
    rows: &[Row],
    read: impl Fn(&Row) -> Result<T, Fault>,
) -> Result<Vec<(K, T)>, Fault> {
    let mut paired = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(key) = keys.get(place(row, 0)?) {
            paired.push((key.clone(), read(row)?));
        }
    }
    Ok(paired)
}

/// Sorts rows into the pages that their first column numbers from 1.
fn pages<T>(
    count: usize,
    rows: &[Row],
    read: impl Fn(&Row) -> Result<T, Fault>,
) -> Result<Vec<Vec<T>>, Fault> {
    pages_by(count, rows, 0, read)
}

/// Sorts rows into the pages that a column numbers from 1.
pub(crate) fn pages_by<T>(
    count: usize,
    rows: &[Row],
    column: usize,
    read: impl Fn(&Row) -> Result<T, Fault>,
) -> Result<Vec<Vec<T>>, Fault> {
    let mut pages: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    for row in rows {
        if let Some(page) = pages.get_mut(place(row, column)?) {
            page.push(read(row)?);
        }
    }
    Ok(pages)
}

pub(crate) fn place(row: &Row, column: usize) -> Result<usize, Fault> {
    Ok(usize::try_from(get::<i64>(row, column)? - 1).unwrap_or(usize::MAX))
}

impl Loader<'_> {
    async fn query(&self, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Fault> {
        self.session.query(sql, params).await
    }

    async fn scoped<T>(
        &self,
        sql: &'static str,
        ids: &[ScopedId],
        read: impl Fn(&Row) -> Result<T, Fault>,
    ) -> Result<Vec<(ScopedId, T)>, Fault> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let namespaces: Vec<_> = ids.iter().map(|(namespace, _)| namespace.as_str()).collect();
        let numbers: Vec<Uuid> = ids.iter().map(|(_, id)| id.0).collect();
        pair(ids, &self.query(sql, &[&SHARD, &namespaces, &numbers]).await?, read)
    }

    async fn named<T>(
        &self,
        sql: &'static str,
        names: &[NameKey],
        read: impl Fn(&Row) -> Result<T, Fault>,
    ) -> Result<Vec<(NameKey, T)>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let namespaces: Vec<_> = names.iter().map(|(namespace, _)| namespace.as_str()).collect();
        let texts: Vec<_> = names.iter().map(|(_, name)| name.as_str()).collect();
        pair(names, &self.query(sql, &[&SHARD, &namespaces, &texts]).await?, read)
    }

    async fn sessions(
        &self,
        load: &Load,
    ) -> Result<Vec<(rota_store::SessionKey, rota_store::SessionRow)>, Fault> {
        if load.sessions.is_empty() {
            return Ok(Vec::new());
        }
        let namespaces: Vec<_> = load.sessions.iter().map(|(namespace, _)| namespace.as_str()).collect();
        let workers: Vec<_> = load.sessions.iter().map(|(_, worker)| worker.as_str()).collect();
        let rows = self.query(sql::LOAD_SESSIONS, &[&SHARD, &namespaces, &workers]).await?;
        pair(&load.sessions, &rows, |row| {
            let epoch = rota_core::Epoch(unsigned(rows::get(row, 2)?));
            Ok(rota_store::SessionRow { epoch, session: rows::record(row, 1)? })
        })
    }

    async fn tasks(&self, wanted: &[TaskKey]) -> Result<Vec<TaskRow>, Fault> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        self.query(sql::LOAD_TASKS, &[&SHARD, &keys(wanted)]).await?.iter().map(rows::task).collect()
    }

    async fn bodies(&self, sql: &'static str, wanted: &[TaskKey]) -> Result<Vec<(TaskKey, Bytes)>, Fault> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.query(sql, &[&SHARD, &keys(wanted)]).await?;
        rows.iter().map(|row| Ok((rows::key(row, 0)?, rows::bytes(row, 1)?))).collect()
    }

    /// Only after damage was found: it need not share the round trip of the others.
    async fn waiting(&self, wanted: &[TaskKey]) -> Result<Vec<(TaskKey, RouteId)>, Fault> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.query(sql::LOAD_WAITING, &[&SHARD, &keys(wanted)]).await?;
        rows.iter().map(|row| Ok((rows::key(row, 0)?, rows::route(row, 1)?))).collect()
    }

    async fn dependents(&self, load: &Load) -> Result<Vec<Vec<TaskRow>>, Fault> {
        let wanted = &load.dependents;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let tasks: Vec<i64> = wanted.iter().map(|page| signed(page.task.0)).collect();
        let after: Vec<i64> = wanted.iter().map(|page| signed(page.after.0)).collect();
        let until: Vec<i64> = wanted.iter().map(|page| signed(page.until.0)).collect();
        let sizes: Vec<i64> = wanted.iter().map(|page| signed(page.limit)).collect();
        let rows = self.query(sql::LOAD_DEPENDENTS, &[&SHARD, &tasks, &after, &until, &sizes]).await?;
        pages(wanted.len(), &rows, rows::task)
    }

    async fn waits(&self, load: &Load) -> Result<Vec<Vec<TaskKey>>, Fault> {
        if load.waits.is_empty() {
            return Ok(Vec::new());
        }
        let namespaces: Vec<_> = load.waits.iter().map(|page| page.key.0.as_str()).collect();
        let names: Vec<_> = load.waits.iter().map(|page| page.key.1.to_string()).collect();
        let sizes: Vec<i64> = load.waits.iter().map(|page| signed(page.limit)).collect();
        let rows = self.query(sql::LOAD_WAITS, &[&SHARD, &namespaces, &names, &sizes]).await?;
        pages(load.waits.len(), &rows, |row| rows::key(row, 1))
    }

    /// Reads payloads, in order, up to a number of bytes.
    async fn payloads(&self, load: &Load) -> Result<Vec<(TaskKey, Bytes)>, Fault> {
        if load.payloads.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: i64 = signed(load.payload_bytes);
        let rows = self.query(sql::LOAD_PAYLOADS, &[&SHARD, &keys(&load.payloads), &bytes]).await?;
        rows.iter().map(|row| Ok((rows::key(row, 0)?, rows::bytes(row, 1)?))).collect()
    }

    async fn ready(&self, load: &Load, floors: &Floors) -> Result<Vec<Vec<ReadyRow>>, Fault> {
        let wanted = &load.ready[..];
        // Pages that are known to be empty are not requested, by a limit of zero.
        let bounds: Vec<_> = wanted.iter().map(|page| floors.after(page)).collect();
        if bounds.iter().all(Option::is_none) {
            return Ok(wanted.iter().map(|_| Vec::new()).collect());
        }
        let routes: Vec<i32> = wanted.iter().map(|page| route_number(page.route)).collect();
        let ranks: Vec<i64> = bounds.iter().map(|bound| bound.map_or(i64::MAX, |(rank, _)| rank)).collect();
        let after: Vec<i64> = bounds.iter().map(|bound| bound.map_or(i64::MAX, |(_, key)| key)).collect();
        let sizes: Vec<i64> =
            wanted.iter().zip(&bounds).map(|(page, bound)| bound.map_or(0, |_| signed(page.limit))).collect();
        let payloads: Vec<bool> = wanted.iter().map(|page| page.payloads).collect();
        let bytes: i64 = signed(load.payload_bytes);
        let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &routes, &ranks, &after, &sizes, &payloads, &bytes];
        let rows = self.query(sql::LOAD_READY, params).await?;
        pages(wanted.len(), &rows, |row| {
            let payload = get::<Option<&[u8]>>(row, 6)?.map(Bytes::copy_from_slice);
            Ok(ReadyRow { rank: get(row, 5)?, row: rows::task(row)?, payload })
        })
    }

    async fn due(&self, load: &Load, floors: &Floors) -> Result<Vec<TaskRow>, Fault> {
        let Some((now, limit)) = load.due else { return Ok(Vec::new()) };
        let limit: i64 = signed(limit);
        let rows = self.query(sql::LOAD_DUE, &[&SHARD, &floors.due(), &now.0, &limit]).await?;
        rows.iter().map(rows::task).collect()
    }

    async fn expired(&self, page: &ExpiredPage) -> Result<ExpiredRows, Fault> {
        let (limit, after) = (page.limit, &page.passed);
        let mut expired = ExpiredRows { passed: after.clone(), ..ExpiredRows::default() };
        let worker = |row: &Row| Ok((Timestamp(get(row, 2)?), rows::names("session of worker", row)?));
        let left = self.dated(sql::LEFT_SESSIONS, page.left_before, &after.sessions, limit, worker).await?;
        expired.sessions = expired.pass_damaged(left, limit, |passed| &mut passed.sessions);
        let Some(before) = page.ended_before else { return Ok(expired) };
        let key = |row: &Row| Ok((Timestamp(get(row, 2)?), rows::names("idempotency key", row)?));
        let orphans = self.dated(sql::ORPHANED_KEYS, before, &after.keys, limit, key).await?;
        expired.keys = expired.pass_damaged(orphans, limit, |passed| &mut passed.keys);
        let thread = |row: &Row| Ok((Timestamp(get(row, 3)?), rows::thread(row)?));
        let idle = self.dated(sql::IDLE_THREADS, before - THREAD_TTL, &after.threads, limit, thread).await?;
        expired.threads = expired.pass_damaged(idle, limit, |passed| &mut passed.threads);
        (expired.tasks, expired.more_tasks) = self.ended_tasks(page, before).await?;
        Ok(expired)
    }

    /// Reads the oldest rows of a kind behind a place, with their dates.
    async fn dated<T>(
        &self,
        sql: &'static str,
        before: Timestamp,
        after: &ExpiredPlace,
        limit: usize,
        read: impl Fn(&Row) -> Result<(Timestamp, Read<T>), Fault>,
    ) -> Result<Vec<(Timestamp, Read<T>)>, Fault> {
        let limit: i64 = signed(limit);
        let params: &[&(dyn ToSql + Sync)] =
            &[&SHARD, &before.0, &after.at.0, &after.namespace, &after.name, &limit];
        self.query(sql, params).await?.iter().map(read).collect()
    }

    /// Returns how many tasks have logs up to a bound, with the one that exceeds it.
    async fn within(&self, page: &LogsPage) -> Result<usize, Fault> {
        let (mut logs, mut count) = (LogSize::default(), 0);
        for tasks in page.tasks.chunks(PRUNE_PAGE) {
            let rows_left: i64 = signed(page.bound.rows.saturating_sub(logs.rows).saturating_add(1));
            for row in self.query(sql::LOG_SIZES, &[&SHARD, &keys(tasks), &rows_left]).await? {
                if logs.exceeds(page.bound) {
                    return Ok(count);
                }
                logs.add(LogSize { rows: unsigned(get(&row, 0)?), bytes: unsigned(get(&row, 1)?) });
                count += 1;
            }
        }
        Ok(count)
    }

    /// Reads ended tasks up to the bounds of a page, and whether there are more.
    async fn ended_tasks(
        &self,
        page: &ExpiredPage,
        before: Timestamp,
    ) -> Result<(Vec<ExpiredRow>, bool), Fault> {
        let (mut tasks, mut logs): (Vec<ExpiredRow>, _) = (Vec::new(), LogSize::default());
        let mut after = page.after.map_or((i64::MIN, i64::MIN), |(at, key)| (at.0, signed(key.0)));
        loop {
            let count: i64 = signed(PRUNE_PAGE);
            let rows_left: i64 = signed(page.logs.rows.saturating_sub(logs.rows).saturating_add(1));
            let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &before.0, &after.0, &after.1, &count, &rows_left];
            let rows = self.query(sql::ENDED_BEFORE, params).await?;
            for row in &rows {
                if tasks.len() == page.limit || logs.exceeds(page.logs) {
                    return Ok((tasks, true));
                }
                let (ended_at, task) = (Timestamp(get(row, 0)?), rows::task(row)?);
                after = (ended_at.0, signed(task.key.0));
                if !task.has_dependents {
                    logs.add(LogSize { rows: unsigned(get(row, 5)?), bytes: unsigned(get(row, 6)?) });
                }
                tasks.push(ExpiredRow { ended_at, row: task });
            }
            if rows.len() < PRUNE_PAGE {
                return Ok((tasks, false));
            }
        }
    }
}
