//! The scheduler: which workers have free slots, and which of them gets which task.
//!
//! It matches in memory and never decides alone: a match becomes real when the store commits it, and the commit comes
//! back through [`Scheduler::apply`]. Two paths lead to an assignment:
//!
//! - a creation reserves a free slot ([`Scheduler::reserve`]), so that creating and assigning are one transaction;
//! - whatever waits is claimed in bulk ([`Scheduler::plan`]) whenever a commit queued a task or a slot became free.
//!
//! Both hold their slots by a [`Reservation`], and nothing else does. Each occupied slot of a worker is one entry of
//! one map and has one [`SlotState`]:
//!
//! ```text
//!            reserve, plan            apply              worker reports        committed
//!   (free) ───────────────► Reserved ───────► Running ──────────────► Finishing ──────► (free)
//!      ▲         dropped        │                │ superseded                             ▲
//!      └────────────────────────┘                └─────────► Abandoned ───────────────────┘
//! ```
//!
//! An attempt in the state Storing, between Running and Finishing, is in the map as well, and holds no slot.
//!
//! Work is proportional to what a change touches. Workers are matched by groups that cover the same routes, and groups with
//! free slots for which tasks wait are indexed by load ([`Matching`](matching::Matching)), so that planning takes claims
//! from an index and never looks at queues or workers that have nothing to do with each other. Views of all workers are
//! taken by [`Demand::snapshot`](crate::demand::Demand::snapshot) alone.
//!
//! Order is exact on one replica: a slot is offered to a new task only when no ready task waits on any route that the
//! slot's worker covers. Admission control ([`Admission`]) per agent, worker, credential and back end is the
//! lever of circuit breakers. Counts that do not
//! add up are reported by the metric `rota_scheduler_slot_mismatch_total`, and fail debug builds.
//!
//! Must not know gRPC services, the store or tokio tasks: every method is short, takes one lock and never waits.

mod admission;
mod backends;
mod capabilities;
mod credentials;
mod group;
mod isolation;
mod matching;
mod queue;
mod reservation;
mod sessions;
mod slots;
mod state;
mod storing;
#[cfg(test)]
mod tests;
mod view;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;
use rota_core::target::Route;
use rota_core::task::WorkerRef;
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp};
use rota_store::{Claim, Commit, TaskChange};
use tokio::sync::Notify;

pub(crate) use admission::Admission;
pub(crate) use reservation::{ClaimPlan, Reservation, until_answered};
pub(crate) use slots::SlotState;
pub(crate) use view::{SchedulerView, WorkerView};
pub(crate) use worker::{SessionHandle, WorkerEntry, WorkerStats};

use crate::keys::{AgentKey, WorkerKey};
use crate::pulse::Pulse;
use reservation::ReservedSlots;
use slots::Purpose;
use state::State;

/// Assigns ready tasks to free slots. See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Scheduler {
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
    changed: Arc<Pulse>,
}

/// Where to send an assignment: the session of its worker, and the worker's agent.
#[derive(Debug)]
pub(crate) struct Recipient {
    pub(crate) session: SessionHandle,
    pub(crate) agent: AgentName,
    /// Whether an assignment to the worker may omit results; see [`WorkerEntry::fetches_results`].
    pub(crate) fetches_results: bool,
    /// Whether the worker can deliver what an earlier attempt has done; see [`WorkerEntry::delivers`].
    pub(crate) delivers: bool,
}

impl Scheduler {
    /// Returns a scheduler without workers. `mismatches` counts inconsistencies of its slots.
    pub(crate) fn new(mismatches: Counter) -> Self {
        let (wake, changed) = (Arc::<Notify>::default(), Arc::<Pulse>::default());
        let state = State::new(Arc::clone(&wake), Arc::clone(&changed), mismatches);
        Self { state: Arc::new(Mutex::new(state)), wake, changed }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Reports that workers, their slots, their queues or an agent's admission or capabilities have changed.
    pub(crate) fn changed(&self) -> &Arc<Pulse> {
        &self.changed
    }

    /// Restores the queues from what the store knows at the start.
    pub(crate) fn restore(&self, routes: Vec<(RouteId, Route)>, queued: Vec<(RouteId, u64)>) {
        let mut state = self.state();
        for (id, route) in routes {
            state.add_queue(id, route);
        }
        for (id, count) in queued {
            state.matching.change_queue(id, |queue| queue.queued = count);
        }
    }

    /// Waits until a task can be matched that could not at the last call. For a single listener.
    pub(crate) async fn match_possible(&self) {
        self.wake.notified().await;
    }

    /// Reserves a free slot of the least loaded worker for a task that is about to be created, unless other tasks wait
    /// for that worker.
    pub(crate) fn reserve(&self, route: &Route, id: TaskId) -> Option<Reservation> {
        let mut state = self.state();
        let queue = state.matching.id(route)?;
        if state.matching.queue(queue)?.queued > 0 {
            return None;
        }
        let worker = state.matching.least_loaded(queue)?;
        let entry = state.workers.get(&worker)?;
        // A probe of its credential is claimed.
        if state.has_backlog(entry) || entry.quota == Admission::Probe {
            return None;
        }
        let (session, purpose) = (entry.worker_ref(), Purpose::Creation(id));
        let worker_probe = state.reserve(&worker, purpose, 1);
        let probe = state.take_probe(&worker);
        let backend_probe = state.take_backend_probe(&worker);
        let arrivals = state.arrivals;
        drop(state);
        let reserved = ReservedSlots {
            worker,
            session,
            purpose,
            slots: 1,
            queue: None,
            probe,
            backend_probe,
            worker_probe,
            quota_probe: None,
            arrivals,
            passed_over: false,
        };
        Some(Reservation::new(&self.state, reserved))
    }

    /// Plans every claim that can be made now, and reserves its slots.
    pub(crate) fn plan(&self) -> Vec<ClaimPlan> {
        let mut plans = Vec::new();
        let mut state = self.state();
        // Each claim takes at least one slot.
        while let Some((claim, reserved)) = state.plan_claim() {
            plans.push(ClaimPlan { claim, reservation: Reservation::new(&self.state, reserved) });
        }
        plans
    }

    /// Sets what an agent's workers may be given from now on.
    pub(crate) fn set_admission(&self, agent: &AgentKey, admission: Admission) {
        self.state().set_admission(agent, admission);
    }

    /// Lets all workers take tasks again that were held back.
    pub(crate) fn release_held(&self) {
        self.state().release_held(None);
    }

    /// Sets what a worker may be given from now on, whatever its agent's admission.
    pub(crate) fn set_worker_admission(&self, key: &WorkerKey, admission: Admission) {
        self.state().set_worker_admission(key, admission);
    }

    #[cfg(test)]
    pub(crate) fn admission(&self, agent: &AgentKey) -> Admission {
        self.state().matching.admission(agent)
    }

    /// Takes in what a commit changed: routes, queues, and the slots of the tasks that it assigned. Returns for each of
    /// its task changes where to send the assignment, if it has one whose worker is connected.
    pub(crate) fn apply(&self, commit: &Commit, now: Timestamp) -> Vec<Option<Recipient>> {
        let mut state = self.state();
        // Routes before the tasks that wait on them; removed routes last, since the commit may still use them.
        for (id, route) in &commit.routes {
            state.add_queue(*id, route.clone());
        }
        for change in &commit.tasks {
            state.apply_queue_change(change);
            state.apply_storing(change);
        }
        for (id, count) in &commit.queue_counts {
            state.correct_queue(*id, *count);
        }
        for id in &commit.removed_routes {
            state.remove_queue(*id);
        }
        commit.tasks.iter().map(|change| state.start_attempt(change, now)).collect()
    }
}

impl State {
    /// Lets the least loaded worker for which tasks wait claim from all of its routes.
    fn plan_claim(&mut self) -> Option<(Claim, ReservedSlots)> {
        let group = self.matching.group(self.matching.next()?)?;
        let (worker, id) = (group.free.first()?.1.clone(), *group.waiting.first()?);
        let queue = self.matching.queue(id)?;
        // One slot at a time spreads work over the workers of a route, unless there is more than enough for every one. The
        // groups of a route are taken to be of the same size.
        let candidates = (group.free.len() * queue.groups.len()) as u64;
        let fair = usize::try_from(queue.backlog() / candidates).unwrap_or(usize::MAX).max(1);
        let generation = queue.generation;
        let entry = self.workers.get(&worker)?;
        let (slots, session) = (self.available(entry).min(fair), entry.worker_ref());
        let routes = self.claimed_routes(&worker, id);
        let shared = routes.iter().copied().filter(|id| self.matching.is_shared(*id)).collect();
        let not_isolating = self.not_isolating(&worker.0, &routes);
        let worker_probe = self.reserve(&worker, Purpose::Claim, slots);
        let probe = self.take_probe(&worker);
        let backend_probe = self.take_backend_probe(&worker);
        let quota_probe = self.take_quota_probe(&worker);
        let claim = Claim {
            namespace: worker.0.clone(),
            worker: session.clone(),
            routes,
            shared,
            slots,
            probes: quota_probe.as_ref().map(|(_, credential)| *credential),
            not_isolating,
        };
        self.matching.change_queue(id, |queue| queue.planned += slots as u64);
        let queue = Some((id, generation));
        let reserved = ReservedSlots {
            worker,
            session,
            purpose: Purpose::Claim,
            slots,
            queue,
            probe,
            backend_probe,
            worker_probe,
            quota_probe,
            arrivals: self.arrivals,
            passed_over: false,
        };
        Some((claim, reserved))
    }

    /// Returns the agents of a namespace whose workers isolate nothing, if one of these routes demands it.
    fn not_isolating(&self, namespace: &Namespace, routes: &[RouteId]) -> Arc<BTreeSet<AgentName>> {
        let demands = |id: &RouteId| {
            self.matching.queue(*id).is_some_and(|queue| queue.route.target.demands_isolation())
        };
        if !routes.iter().any(demands) {
            return Arc::default();
        }
        self.matching.isolation.lacking(namespace)
    }

    /// Turns the reserved slot of a task that a commit assigned into a running attempt.
    fn start_attempt(&mut self, change: &TaskChange, now: Timestamp) -> Option<Recipient> {
        change.dispatch.as_ref()?;
        let task = &*change.task;
        let assignment = task.assignment.as_ref()?;
        let key = (task.namespace.clone(), assignment.worker.clone());
        let session = WorkerRef { worker: assignment.worker.clone(), epoch: assignment.epoch };
        // A creation offers its slot to a new task only: an existing one with the same id was claimed.
        let purpose = if change.before.is_none() { Purpose::Creation(task.id) } else { Purpose::Claim };
        let (reserved, recipient) = self.with_session(&key, &session, |entry| {
            entry.stats.add_busy_time(now, entry.slots.attempts());
            entry.stats.idle_since = None;
            let reserved = entry.slots.start(purpose, task.id, task.fence);
            let recipient = entry.session.clone().map(|session| Recipient {
                session,
                agent: entry.profile.agent.clone(),
                fetches_results: entry.fetches_results,
                delivers: entry.delivers,
            });
            (reserved, recipient)
        })?;
        if !reserved {
            self.report_mismatch("a task was assigned without a reserved slot");
        }
        recipient
    }
}
