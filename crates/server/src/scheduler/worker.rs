//! One worker as the scheduler knows it: its session, what it can do, and its slots. Knows nothing of what runs in them.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rota_core::quota::CredentialId;
use rota_core::target::Profile;
use rota_core::task::WorkerRef;
use rota_core::{Epoch, Fence, TaskId, Timestamp};
use rota_proto::worker::v1::{SessionResponse, session_response};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::group::{GroupId, Load};
use super::slots::{SlotState, Slots};
use crate::keys::{AgentKey, WorkerKey};

/// Entries of a worker's recent activity that are kept.
const MAX_ACTIVITY: usize = 10;

/// Sending half of a worker's session.
#[derive(Debug, Clone)]
pub(crate) struct SessionHandle {
    /// Boxed: a queue has room for 32 messages while nothing is in it.
    pub(crate) messages: mpsc::Sender<Box<SessionResponse>>,
    /// Ends the session when cancelled.
    pub(crate) closed: CancellationToken,
}

impl SessionHandle {
    /// Sends without waiting. Backpressure: the session of a worker that does not keep up is closed, and its lease
    /// decides what becomes of its attempts.
    pub(crate) fn send(&self, kind: session_response::Kind) {
        if self.messages.try_send(Box::new(SessionResponse { kind: Some(kind) })).is_err() {
            self.close();
        }
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }
}

/// Worker statistics for display; not used for scheduling.
#[derive(Debug, Clone)]
pub(crate) struct WorkerStats {
    pub(crate) idle_since: Option<Timestamp>,
    pub(crate) connected_at: Timestamp,
    pub(crate) last_seen_at: Timestamp,
    pub(crate) cpu: f64,
    pub(crate) memory_bytes: i64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) version: String,
    pub(crate) runtime_version: String,
    pub(crate) runtime_missing: Vec<String>,
    /// Whether its attempts are isolated, or why not, by its own statement.
    pub(crate) isolated: bool,
    pub(crate) not_isolated_reason: String,
    /// What keeps it from running attempts, by its own statement; empty if nothing does.
    pub(crate) not_ready_reason: String,
    /// Whether that concerns it alone, and not its machine.
    pub(crate) not_ready_alone: bool,
    /// Time for which slots were occupied, summed over all slots, up to `busy_until`.
    pub(crate) busy: Duration,
    busy_until: Timestamp,
    /// Newest last. Shared with readers: read often, changed rarely.
    pub(crate) recent_activity: Arc<VecDeque<ActivityEntry>>,
}

/// One thing that a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActivityEntry {
    pub(crate) at: Timestamp,
    pub(crate) what: &'static str,
    pub(crate) task: Option<TaskId>,
}

impl WorkerStats {
    fn new(at: Timestamp) -> Self {
        Self {
            idle_since: None,
            connected_at: at,
            last_seen_at: at,
            cpu: 0.0,
            memory_bytes: 0,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            version: String::new(),
            runtime_version: String::new(),
            runtime_missing: Vec::new(),
            isolated: false,
            not_isolated_reason: String::new(),
            not_ready_reason: String::new(),
            not_ready_alone: false,
            busy: Duration::ZERO,
            busy_until: at,
            recent_activity: Arc::default(),
        }
    }

    /// Appends to the recent activity.
    pub(crate) fn record(&mut self, at: Timestamp, what: &'static str, task: Option<TaskId>) {
        let recent = Arc::make_mut(&mut self.recent_activity);
        if recent.len() >= MAX_ACTIVITY {
            recent.pop_front();
        }
        recent.push_back(ActivityEntry { at, what, task });
    }

    /// Adds the time since the last call for `attempts` occupied slots.
    pub(crate) fn add_busy_time(&mut self, now: Timestamp, attempts: usize) {
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        self.busy = self.busy.saturating_add(now.since(self.busy_until).saturating_mul(attempts));
        self.busy_until = now.max(self.busy_until);
    }
}

/// A worker, with or without a session.
#[derive(Debug)]
pub(crate) struct WorkerEntry {
    pub(crate) profile: Profile,
    pub(crate) stats: WorkerStats,
    /// Capabilities that the worker has besides those of its agent.
    pub(crate) own_capabilities: BTreeSet<String>,
    pub(crate) epoch: Epoch,
    pub(crate) instance: String,
    /// UID of its pod, if its token is of one.
    pub(crate) pod: Option<String>,
    /// Whether its token names it, and not only its agent.
    pub(crate) named: bool,
    pub(crate) slot_count: usize,
    /// `None` while no session is up.
    pub(crate) session: Option<SessionHandle>,
    pub(crate) draining: bool,
    /// Set while the worker is sent what it missed; new inputs wait for that, so that they keep their order.
    pub(crate) catching_up: bool,
    /// An input arrived while the worker was catching up.
    pub(crate) missed_input: bool,
    /// Whether the worker fetches results that an assignment omits: it does from protocol version 2 on.
    pub(crate) fetches_results: bool,
    /// Whether the worker only delivers where an assignment asks for that; another one would run the agent again.
    pub(crate) delivers: bool,
    /// Attempts whose events had a gap, in this session or an earlier one.
    pub(crate) gaps: HashSet<(TaskId, Fence)>,
    pub(super) slots: Slots,
    /// Set by the worker's circuit breaker.
    pub(crate) admission: Admission,
    /// Model credential of its agent that its last attempt used; `None` before the first.
    pub(crate) credential: Option<CredentialId>,
    /// Set by the cool-down of that credential.
    pub(super) quota: Admission,
    /// Whether the worker has not named a credential, while one of its agent's cools down: it gets a single task.
    pub(super) unproven: bool,
    /// Whether all tasks that wait for the worker avoid it.
    pub(super) held: bool,
    /// Grows with each use of any worker: of those with the same load, the one that was used least recently is next.
    pub(super) used: u64,
    /// Groups that the worker is in: first the one that depends on its capabilities.
    pub(super) groups: Vec<GroupId>,
}

impl WorkerEntry {
    /// Returns a worker without a session, slots or attempts.
    pub(crate) fn new(profile: Profile, epoch: Epoch, instance: String, at: Timestamp) -> Self {
        Self {
            profile,
            stats: WorkerStats::new(at),
            own_capabilities: BTreeSet::new(),
            epoch,
            instance,
            pod: None,
            named: false,
            slot_count: 0,
            session: None,
            draining: false,
            catching_up: false,
            missed_input: false,
            fetches_results: false,
            delivers: false,
            gaps: HashSet::new(),
            slots: Slots::default(),
            admission: Admission::Open,
            credential: None,
            quota: Admission::Open,
            unproven: false,
            held: false,
            used: 0,
            groups: Vec::new(),
        }
    }

    pub(crate) fn key(&self) -> WorkerKey {
        (self.profile.namespace.clone(), self.profile.worker.clone())
    }

    pub(crate) fn agent(&self) -> AgentKey {
        (self.profile.namespace.clone(), self.profile.agent.clone())
    }

    pub(crate) fn worker_ref(&self) -> WorkerRef {
        WorkerRef { worker: self.profile.worker.clone(), epoch: self.epoch }
    }

    /// Adds an attempt that the worker still has from an earlier session.
    pub(crate) fn resume(&mut self, id: TaskId, fence: Fence, state: SlotState) {
        self.slots.resume(id, fence, state);
    }

    pub(crate) fn attempts(&self) -> usize {
        self.slots.attempts()
    }

    /// Returns the number of slots that are neither occupied nor reserved, whatever the admission.
    pub(super) fn free(&self) -> usize {
        if self.session.is_none() || self.draining {
            return 0;
        }
        // A worker that came back with fewer slots may still have more attempts than these.
        self.slot_count.saturating_sub(self.slots.occupied())
    }

    /// Returns what watchers of workers see, but for statistics.
    pub(super) fn shape(&self) -> (bool, bool, bool, bool, usize, usize) {
        let alone = self.stats.not_ready_alone;
        (self.session.is_some(), self.draining, self.is_ready(), alone, self.attempts(), self.free())
    }

    /// Whether nothing keeps the worker from running attempts, by its own statement.
    pub(super) fn is_ready(&self) -> bool {
        self.stats.not_ready_reason.is_empty()
    }

    /// Returns how many of the free slots its credential lets be given out.
    pub(super) fn quota_limit(&self, free: usize) -> usize {
        match self.unproven {
            true if self.slots.occupied() > 0 => 0,
            true => free.min(1),
            false => self.quota.limit(free),
        }
    }

    /// Whether the worker may be given tasks as soon as it has a free slot.
    pub(super) fn is_able(&self) -> bool {
        let admitted = self.admission.limit(self.quota_limit(1)) > 0;
        self.session.is_some() && !self.draining && self.is_ready() && admitted
    }

    /// Returns the place of the worker among those with free slots.
    pub(super) fn load(&self) -> Option<Load> {
        (self.is_able() && !self.held && self.free() > 0).then(|| (self.slots.occupied(), self.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: i64) -> Timestamp {
        Timestamp(number * 1_000_000)
    }

    #[test]
    fn busy_time_sums_slots_and_never_shrinks() {
        let mut stats = WorkerStats::new(second(0));
        stats.add_busy_time(second(10), 0);
        stats.add_busy_time(second(13), 2);
        // The clock was set back.
        stats.add_busy_time(second(5), 2);
        stats.add_busy_time(second(14), 1);
        assert_eq!(stats.busy, Duration::from_secs(7));
    }

    #[test]
    fn recent_activity_is_bounded() {
        let mut stats = WorkerStats::new(second(0));
        for number in 0..15 {
            stats.record(second(number), "started", None);
        }
        let kept: Vec<_> = stats.recent_activity.iter().map(|entry| entry.at).collect();
        assert_eq!(kept, (5..15).map(second).collect::<Vec<_>>());
    }
}
