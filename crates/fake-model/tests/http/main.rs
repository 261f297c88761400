//! The fake model over HTTP: answers, faults, position in a conversation, server.

// Helpers of tests may unwrap as tests do; the lint only knows the tests themselves.
#![allow(clippy::unwrap_used)]

mod answers;
mod faults;
mod position;
mod server;
mod support;
