//! The end of a worker: it drains, is stopped, or has nothing left to do.

use rota_proto::times::DEFAULT_CANCEL_GRACE;
use rota_proto::worker::v1::{Draining, session_request::Kind};
use tokio::time::Instant;

use super::Error;
use super::handle::StopReason;
use super::storing;
use super::worker::{AttemptEntry, GOODBYE_TIMEOUT, Worker};

impl Worker {
    /// Rejects assignments from now on, and announces that to the control plane.
    pub(super) fn drain(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.draining, true) {
            tracing::info!(reason, running = self.running, "draining");
            let draining = Draining { reason: reason.to_owned() };
            self.outgoing.push_message(Kind::Draining(draining));
        }
    }

    /// Ends the worker once its attempts have, also one that only stores.
    pub(super) fn shut_down(&mut self) {
        self.options.only_store = false;
        self.drain("the worker is shutting down");
    }

    pub(super) fn stop_now(&mut self) {
        self.options.only_store = false;
        self.drain("the worker is shutting down immediately");
        self.give_up_at = Some(Instant::now() + DEFAULT_CANCEL_GRACE + GOODBYE_TIMEOUT);
        self.stop_all(StopReason::WorkerShutdown);
    }

    /// Ends the attempts whose programs still run. Others do nothing that would have to be stopped.
    pub(super) fn stop_working(&self, reason: StopReason) {
        let working =
            self.attempts.values().filter(|entry| !entry.ended && entry.handle.lock().keeping.is_none());
        working.for_each(|entry| entry.handle.request_stop(reason, DEFAULT_CANCEL_GRACE));
    }

    pub(super) fn stop_all(&self, reason: StopReason) {
        for entry in self.attempts.values().filter(|entry| !entry.ended && !self.is_for_later(entry, reason))
        {
            // Its work is done: another attempt would do it again.
            let is_left = reason == StopReason::WorkerShutdown && storing::leave(&entry.handle);
            if !is_left {
                entry.handle.request_stop(reason, DEFAULT_CANCEL_GRACE);
            }
        }
    }

    /// Whether an attempt is none of those that end for this reason: what it has left is on the disk, and this process, or the next one,
    /// stores it.
    fn is_for_later(&self, entry: &AttemptEntry, reason: StopReason) -> bool {
        let ends_unstored = !self.options.temporary_state && !self.options.only_store;
        entry.storing && (reason == StopReason::Disconnected || ends_unstored)
    }

    pub(super) async fn on_replaced(&mut self) -> Error {
        tracing::error!("another process has taken this worker's name");
        self.stop_all_and_wait().await;
        Error::Replaced(self.options.worker.clone())
    }

    pub(super) async fn on_revoked(&mut self) -> Error {
        tracing::error!("the token of this worker was revoked");
        self.stop_all_and_wait().await;
        Error::Revoked(self.options.worker.clone())
    }

    /// Ends all attempts of a worker that the control plane refuses.
    pub(super) async fn stop_all_and_wait(&mut self) {
        self.stop_all(StopReason::WorkerShutdown);
        while self.running > 0 {
            let Some(event) = self.attempt_events.recv().await else { return };
            self.apply_attempt_event(event);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        let late = self.give_up_at.is_some_and(|at| at <= Instant::now());
        // Nor does an orphaned worker wait until its results are delivered.
        let undeliverable = late || (self.orphaned && self.disconnected_at.is_some());
        // Until the control plane knows that an attempt holds no slot, it counts as lost with its worker.
        let is_left = |entry: &AttemptEntry| {
            let is_known = || entry.handle.lock().outbox.is_acked();
            !entry.ended && self.is_for_later(entry, StopReason::WorkerShutdown) && is_known()
        };
        // The control plane learns from a session alone that nothing was left.
        let is_unheard = self.options.only_store && self.epoch.is_none();
        self.draining
            && !is_unheard
            && (self.attempts.values().all(is_left) || (undeliverable && self.running == 0))
    }
}
