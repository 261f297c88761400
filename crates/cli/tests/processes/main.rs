//! The real program as separate processes: control planes and workers that are killed, stopped and
//! started again, agents that leave their sessions, and commands as a user types them.
//!
//! Nothing here sleeps to let something happen: every wait is for a state, and bounded.

// Helpers of tests may unwrap as tests do; the lint only knows the tests themselves.
#![allow(clippy::unwrap_used)]

mod admin;
mod artifact_limits;
mod artifacts;
mod backups;
mod bulk;
mod chaos;
mod claude;
mod cluster;
mod commands;
mod compat;
mod compensations;
mod compose;
mod configuration;
mod contexts;
mod control_plane;
mod conversations;
mod dead_letters;
mod dev;
mod dry_run;
mod errors;
mod failover;
mod faked_clock;
mod fixture;
mod following;
mod full_volume;
mod gitea;
mod hostile;
mod http_api;
mod interrupt;
mod ipv6;
mod isolation;
mod keys;
mod kinds;
mod left_results;
mod login;
mod long_log;
mod lost_history;
mod manifests;
mod money;
mod moving;
mod notifications;
mod object_store;
mod old_cli;
mod output;
mod people;
mod plans;
mod process;
mod procfs;
mod queue;
mod quota;
mod redaction;
mod replicas;
mod reporting;
mod repositories;
mod responses;
mod schedules;
mod setup_caches;
mod shared_store;
mod shutdown;
mod sick_disk;
mod small_disk;
mod storing;
mod templates;
mod terminal;
mod top;
mod traces;
mod transcript;
mod transfers;
mod waiting;
mod worker;
mod workflow_control;
mod workflows;
mod workload;
mod workspaces;

use fixture::{Fixture, Graces};
