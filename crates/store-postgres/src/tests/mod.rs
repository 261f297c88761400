//! Tests that need internals: query plans, errors of the server, migrations, and the timer of the lease.

mod errors;
mod lease;
mod migrations;
mod plans;
mod transfer;
