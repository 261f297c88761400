//! The embedded store as a whole.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod faulty;
mod group;
mod kill;
mod open;
mod twin;
