//! Tests of the pure core through its public door: the whole table of states and commands, invariants
//! over random lives, and one story for each rule of the design.
#![allow(clippy::unwrap_used, reason = "a test that panics has done its duty")]

mod life;
mod properties;
mod scenarios;
mod table;
