//! Replicas that share a database.

use std::time::Duration;

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
