//! What an owner of the shard knows of its ownership: the time of the database, whether the shard is lost, and whether others want it.
//! Knows no SQL: `lease.rs` keeps it current.

use std::time::Duration;

use parking_lot::Mutex;
use rota_core::time::micros;
use rota_store::Error;
use tokio::sync::SetOnce;

use crate::clock::{DatabaseClock, since_boot};

/// Time for which an owner counts on another control plane after it has seen one. While that is replaced, in an upgrade for example,
/// there is none to see, and one that starts while the owner is cut off from the database cannot make itself known.
pub(crate) const RIVAL_MEMORY: Duration = Duration::from_secs(3600);

/// What the owner of the shard and its timer share.
#[derive(Default)]
pub(crate) struct Ownership {
    pub(crate) clock: DatabaseClock,
    /// Why the shard is lost, once it is.
    loss: SetOnce<Error>,
    /// When another control plane was last seen that waited for the shard.
    rival_seen: Mutex<Option<i64>>,
    /// Called once when the shard is found to be lost.
    notify: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl std::fmt::Debug for Ownership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ownership").field("lost", &self.is_lost()).finish_non_exhaustive()
    }
}

impl Ownership {
    pub(crate) fn is_lost(&self) -> bool {
        self.loss.initialized()
    }

    /// Waits until the shard is found to be lost. Returns the error of calls that this ends.
    pub(crate) async fn lost(&self) -> Error {
        self.loss.wait().await.clone()
    }

    /// Whether another control plane waits for the shard, or may have begun to, as far as the owner knows.
    pub(crate) fn has_rivals(&self) -> bool {
        self.has_rivals_at(since_boot())
    }

    pub(crate) fn has_rivals_at(&self, now: i64) -> bool {
        self.rival_seen.lock().is_some_and(|seen| now - seen <= micros(RIVAL_MEMORY))
    }

    pub(crate) fn see_rival(&self) {
        *self.rival_seen.lock() = Some(since_boot());
    }

    pub(crate) fn on_lost(&self, notify: Box<dyn Fn() + Send + Sync>) {
        *self.notify.lock() = Some(notify);
        if self.is_lost() {
            self.notify();
        }
    }

    pub(crate) fn lose(&self, why: Error) {
        let _ = self.loss.set(why);
        self.notify();
    }

    fn notify(&self) {
        let notify = self.notify.lock().take();
        if let Some(notify) = notify {
            notify();
        }
    }
}
