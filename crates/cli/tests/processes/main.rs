//! The real program as separate processes: control planes and workers that are killed, stopped and
//! started again, agents that leave their sessions, and commands as a user types them.
//!
//! Nothing here sleeps to let something happen: every wait is for a state, and bounded.

// Helpers of tests may unwrap as tests do; the lint only knows the tests themselves.
#![allow(clippy::unwrap_used)]

mod admin;
mod answers;
mod control_plane;
mod dev;
mod ending;
mod errors;
mod following;
mod interrupt;
mod manifests;
mod output;
mod process;
mod queue;
mod redaction;
mod rehearsing;
mod seen;
mod stage;
mod storm;
mod telling;
mod terminal;
mod top;
mod traces;
mod verbs;
mod waiting;
mod work;
mod worker;

use stage::{Graces, Stage};
