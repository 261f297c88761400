//! Workers' sessions: one bidirectional call each. Hello comes first; afterwards every message about an attempt carries
//! the attempt's fence.

mod admission;
mod catch_up;
mod decode;
mod deps;
mod expiry;
mod hello;
mod inbound;
mod service;

pub(crate) use deps::SessionDeps;
pub(crate) use expiry::{expire_session, expire_session_after};
pub(crate) use service::Service;
