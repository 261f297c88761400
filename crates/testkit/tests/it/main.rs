//! Whole clusters inside of one process.

mod basic;
