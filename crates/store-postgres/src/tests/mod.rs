//! Tests that need internals: query plans, and errors of the server.

mod errors;
mod plans;
mod transfer;
