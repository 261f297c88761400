//! Workers' sessions: one bidirectional call each. Hello first; afterwards everything about an
//! attempt carries its fence.

mod admission;
mod decode;
mod hello;
mod inbound;
mod service;

pub(crate) use hello::{lose, lose_after};
pub(crate) use service::Service;
