//! Tests of the SQLite store through its public API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod differential;
mod faulty;
mod group;
mod kill;
mod open;
mod random;
mod upgrade;
