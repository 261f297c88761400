//! Tests that need internals: query plans, errors of the server, and migrations.

mod errors;
mod migrations;
mod plans;
mod transfer;
