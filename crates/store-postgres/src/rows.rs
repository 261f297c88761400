//! Columns of results as the store's types.

use std::str::FromStr;

use bytes::Bytes;
use rota_core::task::Task;
use rota_core::{RouteId, TaskId, TaskKey};
use rota_store::codec::{stored, unsigned};
use rota_store::snapshot::{Read, parse_names};
use rota_store::{DamagedObject, Error, NameKey, SealedSecrets, StateRow, Stored, TaskRow, Thread};
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::errors::Fault;

/// Number of the only shard.
pub(crate) const SHARD: i32 = 0;

pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Fault> {
    Ok(row.try_get(column)?)
}

pub(crate) fn key(row: &Row, column: usize) -> Result<TaskKey, Fault> {
    Ok(TaskKey(unsigned(get(row, column)?)))
}

pub(crate) fn id(row: &Row, column: usize) -> Result<TaskId, Fault> {
    Ok(TaskId(get(row, column)?))
}

pub(crate) fn route(row: &Row, column: usize) -> Result<RouteId, Fault> {
    Ok(RouteId(u32::try_from(get::<i32>(row, column)?).unwrap_or(0)))
}

pub(crate) fn bytes(row: &Row, column: usize) -> Result<Bytes, Fault> {
    Ok(Bytes::copy_from_slice(get(row, column)?))
}

/// Decodes a task in place, without a copy of the record.
pub(crate) fn decoded(key: TaskKey, row: &Row, column: usize) -> Result<Stored<Task>, Fault> {
    let task = stored::<Task>(get(row, column)?);
    Ok(task.map(|task| Task { key, ..task }))
}

/// Reads the columns of a task behind a number.
pub(crate) fn task(row: &Row) -> Result<TaskRow, Fault> {
    let key = key(row, 1)?;
    Ok(TaskRow { key, id: id(row, 2)?, task: decoded(key, row, 3)?, has_dependents: get(row, 4)? })
}

/// Reads the state from a task's record, which is dropped.
pub(crate) fn state(row: &Row) -> Result<StateRow, Fault> {
    let key = key(row, 1)?;
    Ok(StateRow { key, id: id(row, 2)?, state: decoded(key, row, 3)?.map(|task| task.state) })
}

/// Returns the record of a row that a caller has named.
pub(crate) fn named(row: Option<&Row>) -> Result<Option<Task>, Fault> {
    let Some(row) = row else { return Ok(None) };
    task(row)?.task.map(Some).map_err(|reason| Error::Corrupt(reason).into())
}

pub(crate) fn record<T: DeserializeOwned>(row: &Row, column: usize) -> Result<Stored<T>, Fault> {
    Ok(stored(get(row, column)?))
}

/// Decodes records; `object` makes the name of a damaged one of the columns behind the record.
pub(crate) fn records<T: DeserializeOwned>(
    rows: &[Row],
    object: impl Fn(String, String, &Row) -> Result<DamagedObject, Fault>,
) -> Result<Vec<Read<T>>, Fault> {
    let read = |row: &Row| {
        Ok(match record(row, 0)? {
            Ok(record) => Ok(record),
            Err(reason) => Err((object(get(row, 1)?, get(row, 2)?, row)?, reason)),
        })
    };
    rows.iter().map(read).collect()
}

/// Reads a pair of a namespace and a name of a row of a kind.
pub(crate) fn names<N: FromStr, M: FromStr>(kind: &'static str, row: &Row) -> Result<Read<(N, M)>, Fault> {
    Ok(parse_names(kind, get(row, 0)?, get(row, 1)?))
}

fn bad_name() -> Fault {
    Fault::Store(Error::Corrupt("a stored name is not valid".to_owned()))
}

/// Reads sealed secrets with what they are bound to.
pub(crate) fn sealed(row: &Row) -> Result<SealedSecrets, Fault> {
    let namespace = get::<&str>(row, 1)?.parse().map_err(|_| bad_name())?;
    Ok(SealedSecrets { key: key(row, 0)?, id: (namespace, id(row, 2)?), sealed: bytes(row, 3)? })
}

/// Reads a thread with its name.
pub(crate) fn thread(row: &Row) -> Result<Read<(NameKey, Stored<Thread>)>, Fault> {
    let thread = record(row, 2)?;
    Ok(names("thread", row)?.map(|name| (name, thread)))
}

/// Converts the id of a route. Those are numbered one by one from 1.
pub(crate) fn route_number(route: RouteId) -> i32 {
    i32::try_from(route.0).unwrap_or(i32::MAX)
}
