//! Tests of the public API: the table of states × commands, invariants over random histories, and one scenario for
//! each rule.
#![allow(clippy::unwrap_used, reason = "a test that panics has done its duty")]

mod harness;
mod properties;
mod scenarios;
mod table;
mod workflow;
