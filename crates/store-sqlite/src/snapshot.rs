//! What a control plane reads at its start: records that it keeps in memory, each of which may be damaged.

use rota_core::agent::Agent;
use rota_core::quota::CoolDown;
use rota_core::spending::Account;
use rota_core::target::Route;
use rota_core::{Epoch, RouteId, TaskId, Timestamp};
use rota_store::codec::{stored, unsigned};
use rota_store::snapshot::{Read, decoded as decoded_of};
use rota_store::{DamagedObject, Error, FollowUp, OnWorker, Session, Snapshot, Span};
use rusqlite::{Connection, Row};

use crate::readers::{all, decoded, key, next_due, one, task_row};
use crate::{sql, workflows};

/// Reads the records that a statement returns; `object` makes the name of a damaged one of the columns behind the record.
fn records<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    sql: &str,
    object: impl Fn(String, String, &Row<'_>) -> rusqlite::Result<DamagedObject>,
) -> Result<Vec<Read<T>>, Error> {
    all(connection, sql, [], |row| {
        Ok(match stored(row.get_ref(0)?.as_blob()?) {
            Ok(record) => Ok(record),
            Err(reason) => Err((object(row.get(1)?, row.get(2)?, row)?, reason)),
        })
    })
}

/// Reads a consistent snapshot, with the tasks of each route only if those are `counted`. The caller is the writer, or has an open
/// transaction.
pub(crate) fn read(connection: &Connection, counted: bool) -> Result<Snapshot, Error> {
    let routes =
        all(connection, sql::ROUTES, [], |row| Ok((RouteId(row.get(0)?), row.get::<_, String>(1)?)))?;
    let routes = routes.into_iter().map(|(id, text)| {
        let route = serde_json::from_str::<Route>(&text);
        route.map(|route| (id, route)).map_err(|error| (DamagedObject::Route(id), error.to_string()))
    });
    let mut damaged = Vec::new();
    let rows = all(connection, sql::ON_WORKERS, [], |row| Ok((RouteId(row.get(4)?), task_row(row)?)))?;
    let (mut on_workers, mut undecodable) = (Vec::new(), Vec::new());
    for (route, row) in rows {
        match row.task {
            Ok(task) => on_workers.push(OnWorker { route, task, has_dependents: row.has_dependents }),
            Err(reason) => undecodable.push((row.key, row.id, reason)),
        }
    }
    let set_aside = all(connection, sql::UNDECODABLE, [], |row| {
        let key = key(row, 1)?;
        Ok((key, TaskId(row.get(2)?), decoded(key, row, 3)?))
    })?;
    undecodable.extend(set_aside.into_iter().filter_map(|(key, id, task)| Some((key, id, task.err()?))));
    let follow_ups = all(connection, sql::FOLLOW_UPS, [], |row| {
        Ok((unsigned(row.get(0)?), stored::<FollowUp>(row.get_ref(1)?.as_blob()?)))
    })?;
    let shard = one(connection, sql::SHARD, [], |row| {
        let away = row.get_ref(3)?.as_blob_or_null()?.map(stored::<Vec<Span>>);
        Ok((unsigned(row.get(0)?), row.get(1)?, row.get::<_, Option<i64>>(2)?, away, row.get(4)?))
    })?;
    let (revision, last_route, written_at, away, store) = shard.unwrap_or_default();
    let agents = records::<Agent>(connection, sql::AGENTS, |namespace, name, _| {
        Ok(DamagedObject::Agent(namespace, name))
    })?;
    let sessions = records::<Session>(connection, sql::SESSIONS, |namespace, worker, row| {
        Ok(DamagedObject::Session(namespace, worker, Epoch(unsigned(row.get(3)?))))
    })?;
    let cool_downs = records::<CoolDown>(connection, sql::COOL_DOWNS, |namespace, credential, _| {
        Ok(DamagedObject::CoolDown(namespace, credential))
    })?;
    let accounts = records::<Account>(connection, sql::ACCOUNTS, |namespace, agent, _| {
        Ok(DamagedObject::Account(namespace, agent))
    })?;
    let count_of = |sql| {
        let count = |row: &Row<'_>| Ok((RouteId(row.get(0)?), unsigned(row.get(1)?)));
        if counted { all(connection, sql, [], count) } else { Ok(Vec::new()) }
    };
    Ok(Snapshot {
        store,
        agents: decoded_of(agents, &mut damaged),
        routes: decoded_of(routes, &mut damaged),
        queued: count_of(sql::QUEUED)?,
        pending: count_of(sql::PENDING_OF_ROUTES)?,
        sessions: decoded_of(sessions, &mut damaged),
        on_workers,
        next_due: next_due(connection)?.into_iter().chain(workflows::next_due(connection)?).min(),
        revision,
        last_route,
        written_at: written_at.map(Timestamp),
        // Without them, queue timeouts count these times: no reason not to start.
        away: away.and_then(Result::ok).unwrap_or_default(),
        undecodable,
        follow_ups,
        cool_downs: decoded_of(cool_downs, &mut damaged),
        accounts: decoded_of(accounts, &mut damaged),
        damaged,
    })
}
