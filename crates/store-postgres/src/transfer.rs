//! Export of a database that this process owns, and import into an empty one, in one transaction.

use std::io::{BufRead, Write};
use std::sync::Arc;

use futures::TryStreamExt;
use rota_store::Error;
use rota_store::codec::{signed, unsigned};
use rota_store::transfer::{
    Counts, Exporter, Head, Importer, Kind, RowSink, TABLES, Table, Value, not_empty,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::errors::Fault;
use crate::lease::transfer_name;
use crate::rows::{SHARD, get};
use crate::session::Session;
use crate::{Options, Shared, Writer, connect, on_own_thread, sql};

/// A reader or writer of an export may be slow.
pub(crate) const PATIENT: &str = "SET idle_in_transaction_session_timeout = 0; SET tcp_user_timeout = 0";

/// Exports a database, which no control plane may own meanwhile. Blocking.
pub fn export(options: Options, to: &mut (dyn Write + Send)) -> Result<Counts, Error> {
    on_own_thread(|| {
        let (owner, session) = own(options)?;
        owner.shared().block_on(read(&session, to)).map_err(Fault::into_error)
    })
}

/// Imports into a new or empty database: everything, or nothing. Blocking.
pub fn import(options: Options, from: &mut (dyn BufRead + Send)) -> Result<Counts, Error> {
    on_own_thread(|| {
        let (import, head) = Importer::begin(from)?;
        let (owner, session) = own(options)?;
        let shared = owner.shared();
        shared.block_on(begin(&session, owner.epoch(), &head)).map_err(Fault::into_error)?;
        let rows = import.copy(&mut Sink { session: &session, shared: &shared })?;
        shared.block_on(end(&session)).map_err(Fault::into_error)?;
        Ok(rows)
    })
}

/// Takes the database over, and opens a session for the transfer.
fn own(options: Options) -> Result<(Writer, Session), Error> {
    let target = options.target.clone();
    let (owner, _) = connect(options)?;
    let opened = async {
        let mut session = Session::open(&target, &transfer_name(owner.id())).await?;
        session.client.batch_execute(PATIENT).await?;
        session.prepare(&[sql::ADVANCE, sql::SHARD, sql::STORE]).await?;
        Ok::<_, Fault>(session)
    };
    let session = owner.shared().block_on(opened).map_err(Fault::into_error)?;
    Ok((owner, session))
}

async fn read(session: &Session, to: &mut dyn Write) -> Result<Counts, Fault> {
    session.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut export = Exporter::begin(to, head(session).await?)?;
    for table in TABLES {
        let names: Vec<_> = table.columns.iter().map(|(name, kind)| read_as(name, *kind)).collect();
        let keys: Vec<_> = table.columns[..table.keys].iter().map(|(name, _)| *name).collect();
        let (columns, keys) = (names.join(", "), keys.join(", "));
        let sql = format!("SELECT {columns} FROM {} WHERE shard = $1 ORDER BY {keys}", table.name);
        let mut rows = std::pin::pin!(session.client.query_raw(&sql, [SHARD]).await?);
        while let Some(row) = rows.try_next().await? {
            export.row(table, &values(table, &row)?)?;
        }
    }
    let rows = export.end()?;
    session.client.batch_execute("COMMIT").await?;
    Ok(rows)
}

/// Returns a column as it is read: numbers have several sizes.
fn read_as(column: &str, kind: Kind) -> String {
    match kind {
        Kind::Int => format!("{column}::int8"),
        _ => column.to_owned(),
    }
}

async fn head(session: &Session) -> Result<Head, Fault> {
    let missing = || Fault::Store(Error::Corrupt("the store has no shard".to_owned()));
    let (store, shard) = (session.query(sql::STORE, &[]).await?, session.query(sql::SHARD, &[&SHARD]).await?);
    let (store, shard) = (store.first().ok_or_else(missing)?, shard.first().ok_or_else(missing)?);
    let last_route = u32::try_from(get::<i32>(shard, 1)?).unwrap_or(0);
    Ok(Head::new(get(store, 0)?, unsigned(get(shard, 0)?), last_route, get(shard, 2)?, get(shard, 3)?))
}

fn values(table: &Table, row: &Row) -> Result<Vec<Value>, Fault> {
    let value = |(index, (_, kind)): (usize, &(&str, Kind))| {
        let value = match kind {
            Kind::Int => get::<Option<_>>(row, index)?.map(Value::Int),
            Kind::Text => get::<Option<_>>(row, index)?.map(Value::Text),
            Kind::Uuid => get::<Option<_>>(row, index)?.map(Value::Uuid),
            Kind::Bytes => get::<Option<_>>(row, index)?.map(Value::Bytes),
            Kind::Bool => get::<Option<_>>(row, index)?.map(Value::Bool),
        };
        Ok(value.unwrap_or(Value::Null))
    };
    table.columns.iter().enumerate().map(value).collect()
}

/// Begins the transaction of an import behind the fence, as each commit: nothing is imported by one that has lost the database.
async fn begin(session: &Session, epoch: i64, head: &Head) -> Result<(), Fault> {
    let away = head.away()?;
    let last_route = i32::try_from(head.last_route).unwrap_or(i32::MAX);
    session.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    if self::head(session).await?.revision > 0 {
        return Err(not_empty().into());
    }
    if head.revision > 0 {
        let (before, revision): (i64, i64) = (0, signed(head.revision));
        let params: &[&(dyn ToSql + Sync)] =
            &[&SHARD, &epoch, &before, &revision, &last_route, &head.written_at, &away];
        session.query(sql::ADVANCE, params).await?;
    }
    session.client.execute("UPDATE store SET id = $1", &[&head.store]).await?;
    Ok(())
}

async fn end(session: &Session) -> Result<(), Fault> {
    let warnings = session.warnings();
    session.client.batch_execute("COMMIT").await?;
    if session.warnings() == warnings { Ok(()) } else { Err(Fault::Warned) }
}

/// The open transaction of an import.
struct Sink<'a> {
    session: &'a Session,
    shared: &'a Arc<Shared>,
}

impl RowSink for Sink<'_> {
    fn insert(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), Error> {
        self.shared.block_on(insert(self.session, table, rows)).map_err(Fault::into_error)
    }
}

async fn insert(session: &Session, table: &Table, rows: Vec<Vec<Value>>) -> Result<(), Fault> {
    let names: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
    let arrays: Vec<_> = table
        .columns
        .iter()
        .zip(2..)
        .map(|((_, kind), number)| {
            let kind = match kind {
                Kind::Int => "int8",
                Kind::Text => "text",
                Kind::Uuid => "uuid",
                Kind::Bytes => "bytea",
                Kind::Bool => "bool",
            };
            format!("${number}::{kind}[]")
        })
        .collect();
    let (columns, arrays) = (names.join(", "), arrays.join(", "));
    let sql = format!(
        "INSERT INTO {table} (shard, {columns}) SELECT $1, new.* FROM unnest({arrays}) AS new ({columns})",
        table = table.name
    );
    let mut columns: Vec<Vec<Value>> = table.columns.iter().map(|_| Vec::new()).collect();
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let kinds = table.columns.iter().map(|(_, kind)| *kind);
    let arrays: Vec<_> = columns.into_iter().zip(kinds).map(|(column, kind)| array(column, kind)).collect();
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&SHARD];
    params.extend(arrays.iter().map(|array| &**array as &(dyn ToSql + Sync)));
    session.client.execute(&sql, &params).await?;
    Ok(())
}

/// Returns a column as an array. A value of another kind, which no importer passes, is null, and refused by the table.
fn array(column: Vec<Value>, kind: Kind) -> Box<dyn ToSql + Sync + Send> {
    macro_rules! array {
        ($kind:ident: $type:ty) => {
            Box::new(
                column
                    .into_iter()
                    .map(|value| match value {
                        Value::$kind(value) => Some(value),
                        _ => None,
                    })
                    .collect::<Vec<Option<$type>>>(),
            )
        };
    }
    match kind {
        Kind::Int => array!(Int: i64),
        Kind::Text => array!(Text: String),
        Kind::Uuid => array!(Uuid: Uuid),
        Kind::Bytes => array!(Bytes: Vec<u8>),
        Kind::Bool => array!(Bool: bool),
    }
}
