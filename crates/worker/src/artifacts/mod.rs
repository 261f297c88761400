//! Artifacts of attempts: the files that an attempt is given before it starts, and those that it leaves behind, which are
//! durable before its result counts. Contents go to the control plane in parts (`rota_client::artifacts`).

mod calls;
mod changes;
mod checkpoint;
mod collect;
mod deliver;
mod give;
mod globs;
mod keep;
mod later;
mod left;
mod place;
mod prepared;
mod room;
mod store;
mod summary;
mod transcript;

pub(crate) use calls::{Caller, Retry};
pub(crate) use checkpoint::FOLDER as CHECKPOINT;
pub(crate) use give::Given;
pub(crate) use keep::{Kept, keep_checkpoint};
pub(crate) use later::{LaterEnd, store_left};
pub(crate) use left::SlotRelease;
pub(crate) use place::place as place_checkpoint;
pub(crate) use room::keep_until_stored;
pub(crate) use transcript::unheard;
