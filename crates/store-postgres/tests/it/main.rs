//! Tests of the PostgreSQL store against a real server.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod conformance;
mod cutter;
mod doubt;
mod failover;
mod fence;
mod pooler;
mod restore;
mod standby;
mod status;
