//! An export has every column of every table: a migration that adds one is not forgotten.

use std::collections::BTreeSet;

use rota_store::transfer::TABLES;
use rusqlite::Connection;

use crate::open_connections;

/// Tables of what is only here, or in the first line of an export.
const OTHERS: [&str; 2] = ["shards", "sqlite_sequence"];

#[test]
fn export_has_every_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    drop(open_connections(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    let sql = "SELECT tables.name, columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
        WHERE tables.type = 'table'";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>().unwrap();
    // What never changes of a task has no table of its own here.
    let place = ["workflow", "step", "round", "item"];
    let name = |(table, column): &(String, String)| match (&**table, &**column) {
        ("payloads", "key") => "specs.key".to_owned(),
        ("payloads", "body") => "specs.payload".to_owned(),
        ("secrets", "sealed") => "secrets.body".to_owned(),
        ("tasks", column) if place.contains(&column) => format!("specs.{column}"),
        (table, column) => format!("{table}.{column}"),
    };
    let mut stored: BTreeSet<_> =
        rows.iter().filter(|(table, _)| !OTHERS.contains(&&**table)).map(name).collect();
    stored.extend(["specs.id", "specs.namespace"].map(str::to_owned));
    let exported: BTreeSet<_> = TABLES
        .iter()
        .flat_map(|table| table.columns.iter().map(|(column, _)| format!("{}.{column}", table.name)))
        .collect();
    assert_eq!(stored, exported);
}
