//! Reservations: the only way to hold a slot before an attempt occupies it. Creations and claims hold theirs from the
//! decision in memory until their commit has been applied.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::task::{Task, WorkerRef};
use rota_core::{AgentName, RouteId};
use rota_store::{Claim, CredentialKey};

use super::admission::Admission;
use super::slots::Purpose;
use super::state::State;
use crate::keys::{BackendKey, WorkerKey};

/// Free slots of one worker session, held until they are committed or dropped.
///
/// Dropping a reservation releases its slots, except those that tasks were assigned to: the commit that assigned them turns
/// each into a running attempt, whichever of the two comes first.
#[derive(Debug)]
pub(crate) struct Reservation {
    state: Arc<Mutex<State>>,
    pub(super) reserved: ReservedSlots,
    /// Slots that a commit has given to tasks.
    assigned: usize,
}

/// The slots of a reservation, and what has to be undone when they are not used.
#[derive(Debug)]
pub(super) struct ReservedSlots {
    pub(super) worker: WorkerKey,
    pub(super) session: WorkerRef,
    pub(super) purpose: Purpose,
    pub(super) slots: usize,
    /// The queue whose backlog a claim is to take, and its generation.
    pub(super) queue: Option<(RouteId, u64)>,
    /// The agent whose breaker is half-open, if one of the slots is for its probe.
    pub(super) probe: Option<AgentName>,
    /// The back end whose breaker is half-open, if one of the slots is for its probe.
    pub(super) backend_probe: Option<BackendKey>,
    /// Whether one of the slots is for the probe of the worker's own breaker.
    pub(super) worker_probe: bool,
    /// The credential of the worker's agent, if one of the slots is for its probe.
    pub(super) quota_probe: Option<CredentialKey>,
    /// Number of arrivals in all queues when the slots were reserved.
    pub(super) arrivals: u64,
    /// Whether all tasks that the claim found avoid the worker.
    pub(super) passed_over: bool,
}

/// A claim that is to be made now, with the slots that it may fill.
#[derive(Debug)]
pub(crate) struct ClaimPlan {
    pub(crate) claim: Claim,
    pub(crate) reservation: Reservation,
}

/// Awaits a commit, and returns its answer with `held`, the reservations that it may fill. If this is dropped before, they
/// are never released, since the commit may have filled them. Only the end of the runtime may drop it: `held` is leaked.
pub(crate) async fn until_answered<T, A>(held: T, commit: impl Future<Output = A>) -> (T, A) {
    let held = ManuallyDrop::new(held);
    let answer = commit.await;
    (ManuallyDrop::into_inner(held), answer)
}

impl Reservation {
    pub(super) fn new(state: &Arc<Mutex<State>>, reserved: ReservedSlots) -> Self {
        Self { state: Arc::clone(state), reserved, assigned: 0 }
    }

    /// Returns the worker session that has the slots.
    pub(crate) fn session(&self) -> &WorkerRef {
        &self.reserved.session
    }

    pub(crate) fn worker(&self) -> &WorkerKey {
        &self.reserved.worker
    }

    /// Hands `assigned` of the slots over to the commit that assigned tasks to them, and releases the others.
    pub(crate) fn commit(self, assigned: usize) {
        drop(self.with_assigned(assigned));
    }

    /// Hands the slot over if the commit that created a task has assigned it to the worker, although it may have ended since.
    /// The same commit may have offered it in vain, and then given it to another worker.
    pub(crate) fn commit_created(self, created: Option<&Task>) {
        let session = self.session();
        let fills = created.is_some_and(|task| match &task.assignment {
            Some(given) => (&given.worker, given.epoch) == (&session.worker, session.epoch),
            None => task.fence.0 > 0 && task.last_worker.as_ref() == Some(&session.worker),
        });
        self.commit(usize::from(fills));
    }

    /// Notes that all waiting tasks avoid the worker.
    pub(crate) fn pass_over(&mut self) {
        self.reserved.passed_over = true;
    }

    /// Notes the slots to hand over when the reservation is dropped.
    pub(crate) fn with_assigned(mut self, assigned: usize) -> Self {
        self.assigned = assigned;
        self
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.state.lock().settle(&self.reserved, self.assigned);
    }
}

impl State {
    pub(super) fn settle(&mut self, reserved: &ReservedSlots, assigned: usize) {
        if let Some((id, generation)) = reserved.queue {
            let settled = self.matching.change_queue(id, |queue| {
                if queue.generation != generation {
                    return true;
                }
                let planned = queue.planned.checked_sub(reserved.slots as u64);
                queue.planned = planned.unwrap_or(queue.planned);
                planned.is_some()
            });
            if settled == Some(false) {
                self.report_mismatch("a queue had fewer planned tasks than its claims hold slots");
            }
        }
        if assigned == 0
            && let Some(agent) = &reserved.probe
        {
            self.return_probe(&(reserved.worker.0.clone(), agent.clone()));
        }
        if assigned == 0
            && let Some(backend) = &reserved.backend_probe
        {
            self.return_backend_probe(backend);
        }
        if assigned > 0
            && let Some(credential) = &reserved.quota_probe
        {
            self.return_quota_probe(credential);
        }
        if assigned == 0 && reserved.worker_probe {
            // Also in a newer session, which took the breaker's state along. Before the slots are free, so that they are not
            // planned with in between.
            self.with_entry(&reserved.worker, |entry| {
                if entry.admission == Admission::ProbeInFlight {
                    entry.admission = Admission::Probe;
                }
            });
        }
        // A worker that left or has a newer session took its slots along.
        let Some(unused) = reserved.slots.checked_sub(assigned) else {
            return self.report_mismatch("more tasks were assigned than slots were reserved");
        };
        // Other tasks may have joined the queues since.
        let hold = reserved.passed_over && self.arrivals == reserved.arrivals;
        let released = self.with_session(&reserved.worker, &reserved.session, |entry| {
            // Before the slots are free, so that they are not planned with in between.
            entry.held |= hold;
            entry.slots.release(reserved.purpose, unused)
        });
        if hold && released.is_some() {
            self.hold(&reserved.worker);
        }
        if released == Some(false) {
            self.report_mismatch("a reserved slot was missing when its reservation ended");
        }
    }
}
