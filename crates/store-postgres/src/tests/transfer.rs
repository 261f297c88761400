//! An export has every column of every table: a migration that adds one is not forgotten.

use std::collections::BTreeSet;

use rota_store::transfer::TABLES;
use rota_testkit::postgres::PostgresServer;

use crate::{Options, Target, open_connections};

/// Tables of what is only here, in the first line of an export, or derived from other tables.
const OTHERS: [&str; 7] =
    ["store", "replicas", "shards", "commits", "migrations", "search_tasks", "search_position"];

#[test]
fn export_has_every_column() {
    let server = PostgresServer::shared();
    let url = server.database().unwrap();
    drop(open_connections(Options::new(Target::parse(&url, None).unwrap(), "export")).unwrap());
    let columns =
        "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'rota'";
    let stored = server.sql(&url, columns).unwrap();
    let is_other = |column: &&str| OTHERS.contains(&column.split('.').next().unwrap());
    let stored: BTreeSet<_> = stored
        .lines()
        .filter(|column| !is_other(column) && !column.ends_with(".shard"))
        .map(str::to_owned)
        .collect();
    let exported: BTreeSet<_> = TABLES
        .iter()
        .flat_map(|table| table.columns.iter().map(|(column, _)| format!("{}.{column}", table.name)))
        .collect();
    assert_eq!(stored, exported);
}
