//! One worker, as dispatch sees it. Knows its slots, not what runs in them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rota_core::target::Profile;
use rota_core::task::WorkerRef;
use rota_core::{Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_proto::worker::v1::SessionResponse;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Gate;

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

/// How it stands with an attempt that fills a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The worker has it.
    Held,
    /// The worker's last word on it has come, and is being committed.
    Ending,
    /// It no longer counts. The worker has been told, and says when nothing of it is left.
    Leaving,
}

/// What people want to know of a worker, and dispatch does not.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) idle_since: Option<Timestamp>,
    pub(crate) connected_at: Timestamp,
    pub(crate) heard_at: Timestamp,
    pub(crate) cpu: f64,
    pub(crate) memory_bytes: i64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) version: String,
    pub(crate) runtime_version: String,
    /// Time for which slots were filled, all slots together, up to `counted_at`.
    pub(crate) busy: Duration,
    pub(crate) counted_at: Timestamp,
    /// The latest last. Shared with whoever looks: this is read often and changed seldom.
    pub(crate) deeds: Arc<VecDeque<Deed>>,
}

/// One thing that a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deed {
    pub(crate) at: Timestamp,
    pub(crate) what: &'static str,
    pub(crate) task: Option<TaskId>,
}

/// Deeds that are kept of a worker.
const DEEDS: usize = 10;

impl About {
    fn new(at: Timestamp) -> Self {
        Self {
            idle_since: None,
            connected_at: at,
            heard_at: at,
            cpu: 0.0,
            memory_bytes: 0,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            version: String::new(),
            runtime_version: String::new(),
            busy: Duration::ZERO,
            counted_at: at,
            deeds: Arc::default(),
        }
    }

    /// Notes what it did.
    pub(crate) fn did(&mut self, at: Timestamp, what: &'static str, task: Option<TaskId>) {
        let deeds = Arc::make_mut(&mut self.deeds);
        if deeds.len() >= DEEDS {
            deeds.pop_front();
        }
        deeds.push_back(Deed { at, what, task });
    }

    /// Counts the time up to now for the slots that were filled.
    pub(crate) fn count(&mut self, now: Timestamp, filled: usize) {
        let filled = u32::try_from(filled).unwrap_or(u32::MAX);
        self.busy = self.busy.saturating_add(now.since(self.counted_at).saturating_mul(filled));
        self.counted_at = now.max(self.counted_at);
    }
}

#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) profile: Profile,
    pub(crate) about: About,
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
    /// Attempts on it: each fills a slot. An old one of a task may be there beside its new one.
    pub(crate) attempts: BTreeMap<(TaskId, Fence), Phase>,
    /// Slots kept for creations under way.
    pub(crate) reserved: HashSet<TaskId>,
    /// Slots kept for claims under way.
    pub(crate) claiming: usize,
    /// Routes that it may take from.
    pub(crate) covers: Vec<RouteId>,
    /// Its agent's.
    pub(crate) gate: Gate,
}

impl Seat {
    /// A worker without a session, slots or attempts.
    pub(crate) fn new(profile: Profile, epoch: Epoch, instance: String, at: Timestamp) -> Self {
        Self {
            profile,
            about: About::new(at),
            own: BTreeSet::new(),
            epoch,
            instance,
            slots: 0,
            outgoing: None,
            draining: false,
            catching_up: false,
            missed_input: false,
            attempts: BTreeMap::new(),
            reserved: HashSet::new(),
            claiming: 0,
            covers: Vec::new(),
            gate: Gate::Open,
        }
    }

    pub(crate) fn key(&self) -> SeatKey {
        (self.profile.namespace.clone(), self.profile.worker.clone())
    }

    pub(crate) fn worker(&self) -> WorkerRef {
        WorkerRef { worker: self.profile.worker.clone(), epoch: self.epoch }
    }

    /// Slots that are filled or promised.
    pub(crate) fn used(&self) -> usize {
        self.attempts.len() + self.reserved.len() + self.claiming
    }

    /// Slots that nothing fills.
    pub(crate) fn room(&self) -> usize {
        let room = if self.outgoing.is_none() || self.draining { 0 } else { self.slots };
        room.saturating_sub(self.used())
    }

    /// Slots that can be given away now.
    pub(crate) fn free(&self) -> usize {
        match self.gate {
            Gate::Open => self.room(),
            Gate::One => self.room().min(1),
            Gate::Tried | Gate::Shut => 0,
        }
    }

    /// An attempt that was held goes on to another phase. Whether it was.
    pub(crate) fn advance(&mut self, id: TaskId, fence: Fence, to: Phase) -> bool {
        let held = self.attempts.get_mut(&(id, fence)).filter(|phase| **phase == Phase::Held);
        held.map(|phase| *phase = to).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filled_slots_are_counted_and_deeds_are_bounded() {
        let second = |number: i64| Timestamp(number * 1_000_000);
        let mut about = About::new(second(0));
        about.count(second(10), 0);
        about.count(second(13), 2);
        // A clock that is set back takes nothing away.
        about.count(second(5), 2);
        about.count(second(14), 1);
        assert_eq!(about.busy, Duration::from_secs(7));
        for number in 0..15 {
            about.did(second(number), "started", None);
        }
        let kept: Vec<_> = about.deeds.iter().map(|deed| deed.at).collect();
        assert_eq!(kept, (5..15).map(second).collect::<Vec<_>>());
    }
}
