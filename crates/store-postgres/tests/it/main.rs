//! Tests of the PostgreSQL store against a real server.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod conformance;
mod cutter;
#[path = "../../../store-sqlite/tests/it/differential/mod.rs"]
mod differential;
mod doubt;
mod failover;
mod fence;
mod model;
mod pooler;
mod random;
mod restore;
mod retention;
mod standby;
mod status;
mod tls;
