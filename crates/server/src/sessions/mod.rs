//! Workers' sessions: one bidirectional call each. Hello comes first; afterwards every message about an attempt carries
//! the attempt's fence.

mod acknowledge;
mod branches;
mod catch_up;
mod checkpoint;
mod decode;
mod deps;
mod heartbeats;
mod hello;
mod hello_rate;
mod identity;
mod inbound;
mod keep_artifacts;
mod lost_events;
mod previous_result;
mod results;
mod running;
mod service;
mod step_results;
mod take;
mod worker_loss;
mod worker_state;

use std::time::Duration;

use rota_core::{retry, task};
use rota_proto::{limits, times};

pub(crate) use branches::is_own_branch;
pub(crate) use deps::SessionDeps;
pub(crate) use heartbeats::Heartbeats;
pub(crate) use identity::{check_serves, limit_to_announced};
pub(crate) use service::Service;
pub(crate) use worker_loss::{expire_session, expire_session_after};

/// Delay before the store is asked again that was unavailable.
const STORE_RETRY_DELAY: Duration = Duration::from_millis(500);

// Workers choose their own times and limits by these.
const _: () = assert!(task::CONFIRM_SLACK.as_secs() == times::CONFIRM_SLACK.as_secs());
const _: () = assert!(task::MAX_STORING_TIME.as_secs() == times::MAX_STORING_TIME.as_secs());
const _: () = assert!(task::DEFAULT_CANCEL_GRACE.as_secs() == times::DEFAULT_CANCEL_GRACE.as_secs());
const _: () = assert!(retry::MAX_RESET.as_secs() == times::MAX_RESET.as_secs());
const _: () = assert!(task::MAX_OPEN_REQUESTS == limits::OPEN_REQUESTS);
const _: () = assert!(rota_artifacts::MAX_PART_BYTES == rota_proto::PART_BYTES);
// What is sent most must not take the room of what is large and rare.
const _: () = assert!(size_of::<rota_proto::worker::v1::SessionResponse>() <= 64);
