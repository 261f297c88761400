//! Files of the worker's state that several modules lock, remove or try out. Knows nothing of workspaces and repositories.

pub(crate) mod last_use;
mod lock;
mod probe;
pub(crate) mod remove;

pub(crate) use lock::{LOCK_INTERVAL, Lock, acquire, locked, try_acquire, unlocked};
pub(crate) use probe::{probe, probe_in_time};
