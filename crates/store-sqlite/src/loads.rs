//! Reads of the write connection: the rows that a batch needs and memory lacks.

use std::str::FromStr;

use bytes::Bytes;
use rota_core::{Epoch, RouteId, TaskId, TaskKey, Timestamp};
use rota_store::{
    Error, ExpiredPage, ExpiredPlace, ExpiredRow, ExpiredRows, IdempotencyRow, Load, Loaded, LogSize,
    LogsPage, NameKey, ReadyPage, ReadyRow, Session, SessionRow, THREAD_TTL, TaskRow, Thread, WaitsPage,
};
use rusqlite::{OptionalExtension, Params, Row, params};

use crate::open::explain;
use crate::writer::Writer;
use crate::{readers, sql, workflows};
use rota_store::codec::{signed, stored, unsigned};
use rota_store::snapshot::{Read, parse_names};

/// Reads the date of a row of a kind, with its namespace and its name.
fn names<N: FromStr, M: FromStr>(
    kind: &'static str,
    row: &Row<'_>,
) -> rusqlite::Result<(Timestamp, Read<(N, M)>)> {
    let (namespace, name): (String, String) = (row.get(0)?, row.get(1)?);
    Ok((Timestamp(row.get(2)?), parse_names(kind, &namespace, &name)))
}

impl Writer {
    /// Reads the row of each key, if there is one.
    fn rows<'a, K: Clone, P: Params, T>(
        &self,
        sql: &str,
        keys: &'a [K],
        params: impl Fn(&'a K) -> P,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<(K, T)>, Error> {
        let mut found = Vec::new();
        if keys.is_empty() {
            return Ok(found);
        }
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| explain(&error))?;
        for key in keys {
            let row = statement.query_row(params(key), &read).optional().map_err(|error| explain(&error))?;
            found.extend(row.map(|row| (key.clone(), row)));
        }
        Ok(found)
    }

    fn bodies(&self, sql: &str, keys: &[TaskKey]) -> Result<Vec<(TaskKey, Bytes)>, Error> {
        self.rows(
            sql,
            keys,
            |key| [signed(key.0)],
            |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)),
        )
    }

    fn tasks(&self, sql: &str, params: impl Params) -> Result<Vec<TaskRow>, Error> {
        readers::all(&self.connection, sql, params, readers::task_row)
    }

    fn idempotency_keys(&self, keys: &[NameKey]) -> Result<Vec<(NameKey, IdempotencyRow)>, Error> {
        let owner = |row: &Row<'_>| Ok((TaskId(row.get(0)?), readers::key(row, 1)?));
        let owners = self.rows(sql::KEY, keys, |(n, key)| (n.as_str(), key), owner)?;
        let row = |(name, (id, key)): (NameKey, (TaskId, TaskKey))| {
            let task = self.tasks(sql::TASK, [signed(key.0)])?.pop();
            Ok((name, IdempotencyRow { id, task }))
        };
        owners.into_iter().map(row).collect()
    }

    /// Reads payloads, in order, up to a number of bytes.
    fn payloads(&self, keys: &[TaskKey], left: &mut u64) -> Result<Vec<(TaskKey, Bytes)>, Error> {
        let mut found = Vec::new();
        for key in keys {
            if *left == 0 {
                break;
            }
            for (key, payload) in self.bodies(sql::PAYLOAD, &[*key])? {
                *left = left.saturating_sub(payload.len() as u64);
                found.push((key, payload));
            }
        }
        Ok(found)
    }

    /// Reads ready tasks. Payloads are read up to a number of bytes, and not beyond.
    fn ready(&self, page: &ReadyPage, left: &mut u64) -> Result<Vec<ReadyRow>, Error> {
        let sql = if page.payloads { sql::READY_PAYLOADS } else { sql::READY };
        let (rank, key) = page.after.map_or((i64::MIN, i64::MIN), |(rank, key)| (rank, signed(key.0)));
        readers::all(&self.connection, sql, params![page.route.0, rank, key, signed(page.limit)], |row| {
            let wanted = page.payloads && *left > 0;
            let payload =
                if wanted { Some(Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?)) } else { None };
            *left = left.saturating_sub(payload.as_ref().map_or(0, Bytes::len) as u64);
            Ok(ReadyRow { rank: row.get(4)?, row: readers::task_row(row)?, payload })
        })
    }

    fn expired(&self, page: &ExpiredPage) -> Result<ExpiredRows, Error> {
        let (limit, after) = (page.limit, &page.passed);
        let mut rows = ExpiredRows { passed: after.clone(), ..ExpiredRows::default() };
        let worker = |row: &Row<'_>| names("session of worker", row);
        let left = self.dated(sql::LEFT_SESSIONS, page.left_before, &after.sessions, limit, worker)?;
        rows.sessions = rows.pass_damaged(left, limit, |passed| &mut passed.sessions);
        if let Some(before) = page.ended_before {
            let key = |row: &Row<'_>| names("idempotency key", row);
            let orphans = self.dated(sql::ORPHANED_KEYS, before, &after.keys, limit, key)?;
            rows.keys = rows.pass_damaged(orphans, limit, |passed| &mut passed.keys);
            let thread = |row: &Row<'_>| Ok((Timestamp(row.get(3)?), readers::thread_row(row)?));
            let idle = self.dated(sql::IDLE_THREADS, before - THREAD_TTL, &after.threads, limit, thread)?;
            rows.threads = rows.pass_damaged(idle, limit, |passed| &mut passed.threads);
            let (ended, key) = page.after.map_or((i64::MIN, i64::MIN), |(at, key)| (at.0, signed(key.0)));
            (rows.tasks, rows.more_tasks) = self.ended_tasks(page, params![before.0, ended, key])?;
        }
        Ok(rows)
    }

    /// Reads ended tasks up to the bounds of a page, and whether there are more. Neither they nor their logs are read beyond.
    fn ended_tasks(&self, page: &ExpiredPage, params: impl Params) -> Result<(Vec<ExpiredRow>, bool), Error> {
        let explained = |error: rusqlite::Error| explain(&error);
        let mut statement = self.connection.prepare_cached(sql::ENDED_BEFORE).map_err(explained)?;
        let mut rows = statement.query(params).map_err(explained)?;
        let (mut tasks, mut logs) = (Vec::new(), LogSize::default());
        while let Some(row) = rows.next().map_err(explained)? {
            if tasks.len() == page.limit || logs.exceeds(page.logs) {
                return Ok((tasks, true));
            }
            let ended_at = Timestamp(row.get(4).map_err(explained)?);
            let row = readers::task_row(row).map_err(explained)?;
            if !row.has_dependents {
                logs.add(self.log_size(row.key, page.logs.rows.saturating_sub(logs.rows))?);
            }
            tasks.push(ExpiredRow { ended_at, row });
        }
        Ok((tasks, false))
    }

    /// Returns how many tasks have logs up to a bound, with the one that exceeds it.
    fn within(&self, page: &LogsPage) -> Result<usize, Error> {
        let mut logs = LogSize::default();
        for (index, key) in page.tasks.iter().enumerate() {
            if logs.exceeds(page.bound) {
                return Ok(index);
            }
            logs.add(self.log_size(*key, page.bound.rows.saturating_sub(logs.rows))?);
        }
        Ok(page.tasks.len())
    }

    /// Returns the size of a task's log. More than one row beyond a bound is not read.
    fn log_size(&self, key: TaskKey, rows: u64) -> Result<LogSize, Error> {
        let params = [signed(key.0), signed(rows.saturating_add(1))];
        let size = |row: &Row<'_>| Ok(LogSize { rows: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) });
        Ok(readers::one(&self.connection, sql::LOG_SIZE, params, size)?.unwrap_or_default())
    }

    /// Reads the oldest rows of a kind behind a place, with their dates.
    fn dated<T>(
        &self,
        sql: &str,
        before: Timestamp,
        after: &ExpiredPlace,
        limit: usize,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<(Timestamp, Read<T>)>,
    ) -> Result<Vec<(Timestamp, Read<T>)>, Error> {
        let params = params![before.0, after.at.0, after.namespace, after.name, signed(limit)];
        readers::all(&self.connection, sql, params, read)
    }

    /// Reads in the open transaction.
    pub(crate) fn read(&self, load: &Load) -> Result<Loaded, Error> {
        let mut loaded = Loaded {
            ids: self.rows(sql::TASK_BY_ID, &load.ids, |(n, id)| (n.as_str(), id.0), readers::task_row)?,
            results: self.bodies(sql::RESULT, &load.results)?,
            secrets: self.bodies(sql::SECRETS, &load.secrets)?,
            waiting: self.rows(
                sql::WAITING,
                &load.waiting,
                |key| [signed(key.0)],
                |row| Ok(RouteId(row.get(0)?)),
            )?,
            dependencies: self.rows(
                sql::STATE_BY_ID,
                &load.dependencies,
                |(n, id)| (n.as_str(), id.0),
                readers::state_row,
            )?,
            aliases: self.rows(
                sql::STATE_BY_ALIAS,
                &load.aliases,
                |(n, alias)| (n.as_str(), alias),
                readers::state_row,
            )?,
            idempotency_keys: self.idempotency_keys(&load.idempotency_keys)?,
            threads: self.rows(
                sql::THREAD,
                &load.threads,
                |(n, name)| (n.as_str(), name),
                |row| Ok(stored::<Thread>(row.get_ref(0)?.as_blob()?)),
            )?,
            documents: self.rows(
                sql::DOCUMENT,
                &load.documents,
                |key| (key.kind.as_str(), key.namespace.as_str(), &key.name),
                readers::document_row,
            )?,
            sessions: self.rows(
                sql::SESSION,
                &load.sessions,
                |(n, worker)| (n.as_str(), worker.as_str()),
                |row| {
                    let session = stored::<Session>(row.get_ref(0)?.as_blob()?);
                    Ok(SessionRow { epoch: Epoch(unsigned(row.get(1)?)), session })
                },
            )?,
            ..Loaded::default()
        };
        for key in &load.tasks {
            loaded.tasks.extend(self.tasks(sql::TASK, [signed(key.0)])?);
        }
        for page in &load.dependents {
            let params =
                [signed(page.task.0), signed(page.after.0), signed(page.until.0), signed(page.limit)];
            loaded.dependents.push(self.tasks(sql::DEPENDENTS, params)?);
        }
        for WaitsPage { key: (namespace, key), limit } in &load.waits {
            let params = params![namespace.as_str(), key.to_string(), signed(*limit)];
            let key = |row: &Row<'_>| readers::key(row, 0);
            loaded.waits.push(readers::all(&self.connection, sql::WAITERS, params, key)?);
        }
        let mut left = load.payload_bytes;
        for page in &load.ready {
            loaded.ready.push(self.ready(page, &mut left)?);
        }
        loaded.payloads = self.payloads(&load.payloads, &mut left)?;
        loaded.workflows = workflows::load(&self.connection, &load.workflows)?;
        if let Some((now, limit)) = load.due {
            loaded.due = self.tasks(sql::DUE, params![now.0, signed(limit)])?;
        }
        if let Some(page) = &load.expired {
            loaded.expired = self.expired(page)?;
        }
        if let Some(page) = &load.logs {
            loaded.logs = self.within(page)?;
        }
        Ok(loaded)
    }
}
