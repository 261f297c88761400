//! The state that is kept in memory, as of one moment.

use std::collections::HashMap;

use futures::try_join;
use rota_core::agent::Agent;
use rota_core::quota::CoolDown;
use rota_core::spending::Account;
use rota_core::target::Route;
use rota_core::{Epoch, RouteId, Timestamp};
use rota_store::codec::{stored, unsigned};
use rota_store::snapshot::{Read, decoded};
use rota_store::{DamagedObject, FollowUp, OnWorker, Session, Snapshot, Span};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use crate::errors::{Fault, unavailable};
use crate::rows::{self, SHARD, get};
use crate::sql;

/// Statements of readers have a limit, which a count of a long queue may exceed; its routes are sorted in memory.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; SET LOCAL work_mem = '64MB'";

pub(crate) type Prepared = HashMap<&'static str, Statement>;

/// Reads a snapshot in one round trip, in a transaction of its own; with the tasks of each route only if those are `counted`, which
/// takes half a second for a million.
pub(crate) async fn read(client: &Client, prepared: &Prepared, counted: bool) -> Result<Snapshot, Fault> {
    let of_shard = |sql: &'static str| query(client, prepared, sql, true);
    let count_of = async |sql| if counted { of_shard(sql).await } else { Ok(Vec::new()) };
    let begun = async { Ok::<_, Fault>(client.batch_execute(BEGIN).await?) };
    let (
        (),
        store,
        shard,
        undecodable,
        routes,
        agents,
        sessions,
        queued,
        pending,
        on_workers,
        due,
        workflow_due,
        step_due,
        cool_downs,
        accounts,
        follow_ups,
        (),
    ) = try_join!(
        begun,
        query(client, prepared, sql::STORE, false),
        of_shard(sql::SHARD),
        of_shard(sql::UNDECODABLE),
        of_shard(sql::ROUTES),
        of_shard(sql::AGENTS),
        of_shard(sql::SESSIONS),
        count_of(sql::QUEUED),
        count_of(sql::PENDING_OF_ROUTES),
        of_shard(sql::ON_WORKERS),
        of_shard(sql::FIRST_DUE),
        of_shard(sql::NEXT_WORKFLOW_DUE),
        of_shard(sql::NEXT_STEP_DUE),
        of_shard(sql::COOL_DOWNS),
        of_shard(sql::ACCOUNTS),
        of_shard(sql::FOLLOW_UPS),
        async { Ok(client.batch_execute("COMMIT").await?) },
    )?;
    let missing = || {
        Fault::Store(unavailable("the store has no shard".to_owned(), "restore the database from a backup"))
    };
    let (store, shard) = (store.first().ok_or_else(missing)?, shard.first().ok_or_else(missing)?);
    let mut damaged = Vec::new();
    let agents =
        rows::records::<Agent>(&agents, |namespace, name, _| Ok(DamagedObject::Agent(namespace, name)))?;
    let sessions = rows::records::<Session>(&sessions, |namespace, worker, row| {
        Ok(DamagedObject::Session(namespace, worker, Epoch(unsigned(get(row, 3)?))))
    })?;
    let cool_downs = rows::records::<CoolDown>(&cool_downs, |namespace, credential, _| {
        Ok(DamagedObject::CoolDown(namespace, credential))
    })?;
    let accounts = rows::records::<Account>(&accounts, |namespace, agent, _| {
        Ok(DamagedObject::Account(namespace, agent))
    })?;
    let routes = routes.iter().map(route).collect::<Result<Vec<_>, _>>()?;
    let count = |row: &Row| Ok::<_, Fault>((rows::route(row, 0)?, unsigned(get(row, 1)?)));
    let mut snapshot = Snapshot {
        store: get(store, 0)?,
        agents: decoded(agents, &mut damaged),
        routes: decoded(routes, &mut damaged),
        queued: queued.iter().map(count).collect::<Result<_, _>>()?,
        pending: pending.iter().map(count).collect::<Result<_, _>>()?,
        sessions: decoded(sessions, &mut damaged),
        next_due: [&due, &workflow_due, &step_due]
            .into_iter()
            .filter_map(|rows| rows.first())
            .map(|row| Ok::<_, Fault>(Timestamp(get(row, 0)?)))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .min(),
        revision: unsigned(get(shard, 0)?),
        last_route: u32::try_from(get::<i32>(shard, 1)?).unwrap_or(0),
        written_at: get::<Option<i64>>(shard, 2)?.map(Timestamp),
        // Without them, queue timeouts count these times: no reason not to start.
        away: get::<Option<&[u8]>>(shard, 3)?
            .and_then(|away| stored::<Vec<Span>>(away).ok())
            .unwrap_or_default(),
        cool_downs: decoded(cool_downs, &mut damaged),
        accounts: decoded(accounts, &mut damaged),
        damaged,
        follow_ups: follow_ups
            .iter()
            .map(|row| Ok::<_, Fault>((unsigned(get(row, 0)?), rows::record::<FollowUp>(row, 1)?)))
            .collect::<Result<_, _>>()?,
        ..Snapshot::default()
    };
    for row in &on_workers {
        let (task, route) = (rows::task(row)?, rows::route(row, 5)?);
        match task.task {
            Ok(record) => snapshot.on_workers.push(OnWorker {
                route,
                task: record,
                has_dependents: task.has_dependents,
            }),
            Err(reason) => snapshot.undecodable.push((task.key, task.id, reason)),
        }
    }
    for row in &undecodable {
        let key = rows::key(row, 1)?;
        if let Err(reason) = rows::decoded(key, row, 3)? {
            snapshot.undecodable.push((key, rows::id(row, 2)?, reason));
        }
    }
    Ok(snapshot)
}

fn route(row: &Row) -> Result<Read<(RouteId, Route)>, Fault> {
    let (id, route) = (rows::route(row, 0)?, serde_json::from_str::<Route>(get(row, 1)?));
    Ok(route.map(|route| (id, route)).map_err(|error| (DamagedObject::Route(id), error.to_string())))
}

async fn query(
    client: &Client,
    prepared: &Prepared,
    sql: &'static str,
    of_shard: bool,
) -> Result<Vec<Row>, Fault> {
    let missing = || Fault::Store(unavailable("a statement was not prepared".to_owned(), "report this"));
    let statement = prepared.get(sql).ok_or_else(missing)?;
    let shard: [&(dyn ToSql + Sync); 1] = [&SHARD];
    let params: &[&(dyn ToSql + Sync)] = if of_shard { &shard } else { &[] };
    Ok(client.query(statement, params).await?)
}
