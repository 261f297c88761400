//! One worker, as dispatch sees it. Knows its slots, not what runs in them.

use std::collections::{BTreeSet, HashMap, HashSet};

use rota_core::target::Profile;
use rota_core::task::WorkerRef;
use rota_core::{Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_proto::worker::v1::SessionResponse;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) type SeatKey = (Namespace, WorkerName);

/// The way to a worker.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) messages: mpsc::Sender<SessionResponse>,
    /// Ends the session, for example when the worker does not keep up.
    pub(crate) hang_up: CancellationToken,
}

impl Outgoing {
    /// Sends without waiting. A worker that does not keep up is cut off; its lease decides the rest.
    pub(crate) fn send(&self, kind: rota_proto::worker::v1::session_response::Kind) {
        if self.messages.try_send(SessionResponse { kind: Some(kind) }).is_err() {
            self.hang_up.cancel();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) profile: Profile,
    /// What it can do besides what its agent can.
    pub(crate) own: BTreeSet<String>,
    pub(crate) epoch: Epoch,
    pub(crate) instance: String,
    pub(crate) slots: usize,
    /// `None` while no session is up.
    pub(crate) outgoing: Option<Outgoing>,
    pub(crate) draining: bool,
    /// What was wanted of its attempts while it was away is being told; inputs wait for that, to stay in order.
    pub(crate) catching_up: bool,
    /// An input came meanwhile.
    pub(crate) missed_input: bool,
    /// Attempts that it has.
    pub(crate) held: HashMap<TaskId, Fence>,
    /// Attempts whose result has come and is being committed: they still fill their slot.
    pub(crate) ending: HashMap<TaskId, Fence>,
    /// Slots kept for creations under way.
    pub(crate) reserved: HashSet<TaskId>,
    /// Slots kept for claims under way.
    pub(crate) claiming: usize,
    /// Routes that it may take from.
    pub(crate) covers: Vec<RouteId>,
    pub(crate) idle_since: Option<Timestamp>,
    pub(crate) connected_at: Timestamp,
    pub(crate) heard_at: Timestamp,
    pub(crate) cpu: f64,
    pub(crate) memory_bytes: i64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) version: String,
    pub(crate) runtime_version: String,
}

impl Seat {
    pub(crate) fn key(&self) -> SeatKey {
        (self.profile.namespace.clone(), self.profile.worker.clone())
    }

    pub(crate) fn worker(&self) -> WorkerRef {
        WorkerRef { worker: self.profile.worker.clone(), epoch: self.epoch }
    }

    /// Slots that are filled or promised.
    pub(crate) fn used(&self) -> usize {
        self.held.len() + self.ending.len() + self.reserved.len() + self.claiming
    }

    /// Slots that can be given away now.
    pub(crate) fn free(&self) -> usize {
        if self.outgoing.is_none() || self.draining { 0 } else { self.slots.saturating_sub(self.used()) }
    }

    /// Attempts on it.
    pub(crate) fn running(&self) -> usize {
        self.held.len() + self.ending.len()
    }
}
