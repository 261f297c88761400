//! The fake model over HTTP, as any client would meet it: answers, faults, the place in a conversation, the server.

// Helpers of tests may unwrap as tests do; the lint only knows the tests themselves.
#![allow(clippy::unwrap_used)]

mod answers;
mod faults;
mod place;
mod server;
mod support;
