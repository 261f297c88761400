//! Between the wire and the core: checks what comes in, says what goes out. Holds no state.

pub(crate) mod agent;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod merge;
pub(crate) mod names;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod task;
pub(crate) mod time;
