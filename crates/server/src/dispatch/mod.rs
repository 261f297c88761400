//! Who has free slots, and who gets which task. Matches in memory, commits through the store, and
//! sends what was committed. Exact order on one replica: a slot is offered to a new task only when no
//! ready task waits on any route that the slot's worker covers.

mod fleet;
mod gate;
mod seat;
mod send;
mod view;

pub(crate) use fleet::{Fleet, Offer, PlannedClaim};
pub(crate) use gate::Gate;
pub(crate) use seat::{Outgoing, Phase, Seat, SeatKey};
pub(crate) use send::STALE_GRACE;
pub(crate) use view::{Isolated, Standing, WorkerView};
