//! Attempts with a fake CLI that each test scripts over in-memory pipes; no process is started.

mod conversations;
mod fixture;
mod outcomes;
