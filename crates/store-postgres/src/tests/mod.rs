//! Tests that need internals: commits that cannot be sent, query plans, errors of the server, migrations, and the lease.

mod commit;
mod errors;
mod lease;
mod migrations;
mod plans;
mod transfer;
