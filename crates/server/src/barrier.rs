//! Barriers in the stream of commits: messages that are handled after every commit made before they were sent.

use tokio::sync::{mpsc, oneshot};

use crate::scheduler::Reservation;

/// Barriers that may wait for the commits before them; more than most deployments have workers.
const BARRIER_BUFFER: usize = 4096;

/// A message that is handled after every commit made before it was sent.
pub(crate) enum Barrier {
    /// A claim was answered: the reservation ends, also when the message is dropped with its channel. Only after its commits do the queues show whether a further claim is
    /// worth making.
    ClaimResolved(Reservation),
    /// Reports back that the commits have been applied.
    Flush(oneshot::Sender<()>),
}

/// Sending half of the barriers.
#[derive(Debug, Clone)]
pub(crate) struct Barriers(mpsc::Sender<Barrier>);

impl Barriers {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Barrier>) {
        let (sender, receiver) = mpsc::channel(BARRIER_BUFFER);
        (Self(sender), receiver)
    }

    /// Settles a claim's reservation behind the commits that the claim made.
    pub(crate) async fn claim_resolved(&self, reservation: Reservation, assigned: usize) {
        let _ = self.0.send(Barrier::ClaimResolved(reservation.with_assigned(assigned))).await;
    }

    /// Waits until every commit made so far has been applied: a caller that was answered must find its change when it
    /// asks again.
    pub(crate) async fn flush(&self) {
        let (done, passed) = oneshot::channel();
        if self.0.send(Barrier::Flush(done)).await.is_ok() {
            let _ = passed.await;
        }
    }
}
