//! Export of a database, and import into an empty one, in one transaction.

use std::io::{BufRead, Write};
use std::path::Path;

use rota_store::Error;
use rota_store::codec::unsigned;
use rota_store::transfer::{
    Counts, Exporter, Head, Importer, Kind, RowSink, TABLES, Table, Value, not_empty,
};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};
use uuid::Uuid;

use crate::disk::{Reserve, free_bytes};
use crate::open::{connect, explain};
use crate::{lock, readers, search, sql};

/// Statements that read a table in the order of its key, and that insert one of its rows.
struct Statements {
    read: String,
    insert: Vec<String>,
}

/// Returns the statements of a table, whose columns may have other names here.
fn statements(table: &Table) -> Statements {
    let names: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
    let keys = names[..table.keys].join(", ");
    let marks: Vec<_> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    let (columns, marks) = (names.join(", "), marks.join(", "));
    match table.name {
        // What never changes of a task has no table of its own.
        "specs" => Statements {
            read: "SELECT tasks.key, id, namespace, body, workflow, step, round, item
                   FROM tasks JOIN payloads ON payloads.key = tasks.key ORDER BY tasks.key"
                .to_owned(),
            insert: vec![
                "INSERT INTO payloads (key, body) SELECT ?1, ?4".to_owned(),
                "UPDATE tasks SET workflow = ?5, step = ?6, round = ?7, item = ?8
                 WHERE key = ?1 AND id = ?2 AND namespace = ?3"
                    .to_owned(),
            ],
        },
        "secrets" => Statements {
            read: "SELECT key, sealed FROM secrets ORDER BY key".to_owned(),
            insert: vec!["INSERT INTO secrets (key, sealed) VALUES (?1, ?2)".to_owned()],
        },
        name => Statements {
            read: format!("SELECT {columns} FROM {name} ORDER BY {keys}"),
            insert: vec![format!("INSERT INTO {name} ({columns}) VALUES ({marks})")],
        },
    }
}

/// Exports a database that no process has open.
pub(crate) fn export(database: &Path, to: &mut dyn Write) -> Result<Counts, Error> {
    let _lock = lock::acquire(database)?;
    let (connection, _) = connect(database, &mut Reserve::of(database), free_bytes)?;
    connection.execute_batch("BEGIN").map_err(|error| explain(&error))?;
    let mut export = Exporter::begin(to, head(&connection)?)?;
    for table in TABLES {
        let mut statement = connection.prepare(&statements(table).read).map_err(|error| explain(&error))?;
        let mut rows = statement.query([]).map_err(|error| explain(&error))?;
        while let Some(row) = rows.next().map_err(|error| explain(&error))? {
            let row = values(table, row).map_err(|error| explain(&error))?;
            export.row(table, &row)?;
        }
    }
    export.end()
}

fn head(connection: &Connection) -> Result<Head, Error> {
    let head = readers::one(connection, sql::SHARD, [], |row| {
        let (revision, last_route, written_at) = (unsigned(row.get(0)?), row.get(1)?, row.get(2)?);
        let (away, store): (Option<Vec<u8>>, Uuid) = (row.get(3)?, row.get(4)?);
        Ok(Head::new(store, revision, last_route, written_at, away.as_deref()))
    })?;
    head.ok_or_else(|| Error::Corrupt("the database has no shard".to_owned()))
}

fn values(table: &Table, row: &Row<'_>) -> rusqlite::Result<Vec<Value>> {
    let value = |(index, (_, kind)): (usize, &(&str, Kind))| {
        if row.get_ref(index)? == ValueRef::Null {
            return Ok(Value::Null);
        }
        Ok(match kind {
            Kind::Int => Value::Int(row.get(index)?),
            Kind::Text => Value::Text(row.get(index)?),
            Kind::Uuid => Value::Uuid(row.get(index)?),
            Kind::Bytes => Value::Bytes(row.get(index)?),
            Kind::Bool => Value::Bool(row.get(index)?),
        })
    };
    table.columns.iter().enumerate().map(value).collect()
}

/// A value as a parameter.
struct Param<'a>(&'a Value);

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self.0 {
            Value::Null => Ok(ToSqlOutput::Borrowed(ValueRef::Null)),
            Value::Int(number) => number.to_sql(),
            Value::Text(text) => text.to_sql(),
            Value::Uuid(id) => id.to_sql(),
            Value::Bytes(bytes) => bytes.to_sql(),
            Value::Bool(bit) => bit.to_sql(),
        }
    }
}

/// The open transaction of an import.
struct Sink<'a>(&'a Connection);

impl RowSink for Sink<'_> {
    fn insert(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), Error> {
        for sql in statements(table).insert {
            let mut statement = self.0.prepare_cached(&sql).map_err(|error| explain(&error))?;
            let used = statement.parameter_count();
            for row in &rows {
                let params = row.iter().take(used).map(Param);
                statement.execute(params_from_iter(params)).map_err(|error| explain(&error))?;
            }
        }
        Ok(())
    }
}

/// Imports into a new or empty database that no process has open: everything, or nothing.
pub(crate) fn import(database: &Path, from: &mut dyn BufRead) -> Result<Counts, Error> {
    let (import, head) = Importer::begin(from)?;
    let away = head.away()?;
    let _lock = lock::acquire(database)?;
    // What is left of an earlier database.
    search::remove(database);
    let (mut connection, _) = connect(database, &mut Reserve::of(database), free_bytes)?;
    let failed = |error: rusqlite::Error| explain(&error);
    let transaction = connection.transaction().map_err(failed)?;
    if self::head(&transaction)?.revision > 0 {
        return Err(not_empty());
    }
    let rows = import.copy(&mut Sink(&transaction))?;
    let revision = i64::try_from(head.revision).unwrap_or(i64::MAX);
    let params = rusqlite::params![revision, head.last_route, head.written_at, away, head.store];
    let set = "UPDATE shards SET revision = ?1, last_route = ?2, written_at = ?3, away = ?4, store = ?5 WHERE id = 0";
    transaction.execute(set, params).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    // The log of the import is as large as the database.
    connection.query_row(sql::TRUNCATE_LOG, [], |_| Ok(())).map_err(failed)?;
    Ok(rows)
}
