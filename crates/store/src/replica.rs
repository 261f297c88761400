//! Replicas that share a database, and the database itself.

use std::time::Duration;

use rota_core::Timestamp;

/// A control plane that owns the store, or waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub name: String,
    pub version: String,
    /// Where others reach it, as `HOST:PORT`.
    pub address: String,
    pub owner: bool,
    /// Rest of its lease by the clock of the database.
    pub lease: Duration,
}

/// What decides whether a database keeps what it acknowledges, and how fast it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseStatus {
    pub version: String,
    /// Number of the last migration of the schema.
    pub migration: u32,
    pub fsync: bool,
    pub full_page_writes: bool,
    /// Of the sessions of the control plane.
    pub synchronous_commit: String,
    pub standbys: Standbys,
    pub size_bytes: u64,
    /// Connections to the server, of all its users.
    pub connections: u32,
    pub max_connections: u32,
    /// Time that a commit of nothing has taken.
    pub commit_latency: Duration,
    pub now: Timestamp,
    /// Grows whenever another owner takes the records, and when the present one connects again.
    pub epoch: u64,
    /// Revision of the last commit.
    pub revision: u64,
}

/// Standbys that are connected to a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standbys {
    /// Those that a commit waits for.
    pub synchronous: u32,
    pub asynchronous: u32,
    /// Those whose kind the user of the store may not see.
    pub unknown: u32,
}
