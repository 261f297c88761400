//! Tests that need internals: query plans.

mod plans;
