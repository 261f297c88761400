//! A connection of the benchmarks to PostgreSQL, next to that of the store: sizes of tables, and a transaction that stays open.

use anyhow::{Context, Result};
use rota_telemetry::{OnExit, spawn};
use tokio_postgres::{Client, NoTls};

/// Connects to a database on this machine or in a trusted network: without TLS.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("failed to connect to the database")?;
    spawn("bench-database", OnExit::Done, async move {
        // A connection that is lost fails the next statement.
        let _ = connection.await;
    });
    Ok(client)
}
