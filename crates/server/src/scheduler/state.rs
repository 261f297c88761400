//! What the scheduler's lock protects: workers, and the queues and groups that they are matched by. Every method keeps the
//! groups' lists of free workers in step with the workers' slots.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use rota_core::target::{Profile, Route, Target};
use rota_core::task::{self, WorkerRef};
use rota_core::{AgentName, RouteId};
use rota_store::TaskChange;
use tokio::sync::Notify;

use super::admission::Admission;
use super::credentials::Credentials;
use super::group::GroupKey;
use super::matching::Matching;
use super::slots::Purpose;
use super::storing::Awaited;
use super::worker::WorkerEntry;
use crate::keys::{AgentKey, WorkerKey};
use crate::pulse::Pulse;

/// Routes of one claim, each of which costs the store a search.
const MAX_CLAIMED_ROUTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Boxed: a map that has grown is half empty.
    pub(super) workers: HashMap<WorkerKey, Box<WorkerEntry>>,
    /// Those of them without a session, as ticks take them along.
    pub(super) disconnected: Arc<HashSet<WorkerKey>>,
    pub(super) matching: Matching,
    pub(super) credentials: Credentials,
    pub(super) awaited: Awaited,
    pub(super) mismatches: Counter,
    /// Marked when workers, their slots or their queues have changed, not when only statistics have.
    changed: Arc<Pulse>,
    /// Grows with every change, of statistics too.
    pub(super) version: u64,
    /// Grows with every change that is marked.
    pub(super) changes: u64,
    /// Workers that are held back, by the routes that they cover.
    held: HashMap<RouteId, BTreeSet<WorkerKey>>,
    /// Number of tasks that joined a queue so far.
    pub(super) arrivals: u64,
    last_used: u64,
    /// Number of copies of all workers that were taken.
    pub(super) views: u64,
}

impl State {
    pub(super) fn new(wake: Arc<Notify>, changed: Arc<Pulse>, mismatches: Counter) -> Self {
        Self { matching: Matching::new(wake), changed, mismatches, ..Self::default() }
    }

    /// Notes a change that watchers of workers and queues must see.
    pub(super) fn mark_changed(&mut self) {
        self.version += 1;
        self.changes += 1;
        self.changed.mark();
    }

    /// Changes a worker, and moves it within the lists of free workers.
    pub(super) fn with_entry<O>(
        &mut self,
        key: &WorkerKey,
        change: impl FnOnce(&mut WorkerEntry) -> O,
    ) -> Option<O> {
        let entry: &mut WorkerEntry = self.workers.get_mut(key)?;
        let (before, able, shape) = (entry.load(), entry.is_able(), entry.shape());
        let was_connected = entry.session.is_some();
        let out = change(entry);
        if was_connected && entry.session.is_none() {
            Arc::make_mut(&mut self.disconnected).insert(key.clone());
        } else if !was_connected && entry.session.is_some() {
            Arc::make_mut(&mut self.disconnected).remove(key);
        }
        let (after, still_able) = (entry.load(), entry.is_able());
        for group in &entry.groups {
            if before != after {
                self.matching.move_worker(*group, key, before, after);
            }
            if able != still_able {
                self.matching.set_able(*group, still_able);
            }
        }
        self.version += 1;
        if entry.shape() != shape {
            self.mark_changed();
        }
        if able && !still_able {
            self.release_held(None);
        }
        Some(out)
    }

    /// Reserves slots of a worker. Returns whether one of them is for the probe of the worker's breaker.
    pub(super) fn reserve(&mut self, key: &WorkerKey, purpose: Purpose, slots: usize) -> bool {
        self.last_used += 1;
        let used = self.last_used;
        let probe = self.with_entry(key, |entry| {
            entry.used = used;
            entry.slots.reserve(purpose, slots);
            let probe = entry.admission == Admission::Probe;
            if probe {
                entry.admission = Admission::ProbeInFlight;
            }
            probe
        });
        probe == Some(true)
    }

    /// Holds a worker back that all waiting tasks avoid, until another task waits for it, or another worker is lost to
    /// which they were left.
    pub(super) fn hold(&mut self, key: &WorkerKey) {
        let Some(entry) = self.workers.get(key) else { return };
        let groups = entry.groups.iter().filter_map(|id| self.matching.group(*id));
        let routes: Vec<_> = groups.flat_map(|group| group.routes.iter().copied()).collect();
        for route in routes {
            self.held.entry(route).or_default().insert(key.clone());
        }
        self.with_entry(key, |entry| entry.held = true);
    }

    /// Lets workers take tasks again that were held back: those of one route, or all.
    pub(super) fn release_held(&mut self, route: Option<RouteId>) {
        let held = match route {
            Some(route) => self.held.remove(&route).into_iter().collect(),
            None => std::mem::take(&mut self.held).into_values().collect::<Vec<_>>(),
        };
        for key in held.into_iter().flatten() {
            self.with_entry(&key, |entry| entry.held = false);
        }
    }

    pub(super) fn set_worker_admission(&mut self, key: &WorkerKey, admission: Admission) {
        self.with_entry(key, |entry| entry.admission = admission);
        self.mark_changed();
    }

    /// Changes a worker if this is still its session.
    pub(super) fn with_session<O>(
        &mut self,
        key: &WorkerKey,
        session: &WorkerRef,
        change: impl FnOnce(&mut WorkerEntry) -> O,
    ) -> Option<O> {
        self.workers.get(key).filter(|entry| entry.epoch == session.epoch)?;
        self.with_entry(key, change)
    }

    pub(super) fn add_worker(&mut self, mut entry: WorkerEntry) {
        let key = entry.key();
        self.greet(&key);
        let mut groups = GroupKey::of(&entry);
        let target = Target::Worker(key.1.clone());
        if self.matching.id(&Route { namespace: key.0.clone(), target }).is_some() {
            groups.push(GroupKey::Worker(entry.agent(), key.clone()));
        }
        self.credentials.join(&mut entry);
        entry.groups.clear();
        for group in groups {
            let id = self.matching.join(group, &entry);
            self.matching.move_worker(id, &key, None, entry.load());
            if entry.is_able() {
                self.matching.set_able(id, true);
            }
            entry.groups.push(id);
        }
        if entry.session.is_none() {
            Arc::make_mut(&mut self.disconnected).insert(key.clone());
        }
        self.workers.insert(key, Box::new(entry));
        self.mark_changed();
    }

    pub(super) fn remove_worker(&mut self, key: &WorkerKey) -> Option<WorkerEntry> {
        let entry = self.workers.remove(key)?;
        Arc::make_mut(&mut self.disconnected).remove(key);
        self.credentials.leave(&entry);
        for group in &entry.groups {
            self.matching.move_worker(*group, key, entry.load(), None);
            if entry.is_able() {
                self.matching.set_able(*group, false);
            }
            self.matching.leave(*group);
        }
        self.release_held(None);
        self.mark_changed();
        Some(*entry)
    }

    pub(super) fn add_queue(&mut self, id: RouteId, route: Route) {
        if self.matching.queue(id).is_some_and(|queue| queue.route == route) {
            return;
        }
        // The store may reuse the id of a route that was removed.
        self.remove_queue(id);
        let named = named_worker(&route);
        self.matching.add_queue(id, route);
        let Some((key, entry)) = named.and_then(|key| Some((key.clone(), self.workers.get_mut(&key)?)))
        else {
            return;
        };
        let own = GroupKey::Worker(entry.agent(), key.clone());
        // The same route may exist under another id, which is about to be removed.
        if let Some(group) = self.matching.group_id(&own) {
            return self.matching.match_route(group, id);
        }
        // The worker joins the group of the route that names it.
        let group = self.matching.join(own, entry);
        self.matching.move_worker(group, &key, None, entry.load());
        if entry.is_able() {
            self.matching.set_able(group, true);
        }
        entry.groups.push(group);
    }

    pub(super) fn remove_queue(&mut self, id: RouteId) {
        let Some(route) = self.matching.remove_queue(id) else { return };
        self.mark_changed();
        let Some((key, entry)) =
            named_worker(&route).and_then(|key| Some((key.clone(), self.workers.get_mut(&key)?)))
        else {
            return;
        };
        let own = GroupKey::Worker(entry.agent(), key.clone());
        if let Some(group) = self.matching.group_id(&own)
            && self.matching.id(&route).is_none()
        {
            self.matching.move_worker(group, &key, entry.load(), None);
            if entry.is_able() {
                self.matching.set_able(group, false);
            }
            self.matching.leave(group);
            entry.groups.retain(|known| *known != group);
        }
    }

    /// Counts a task that entered or left its queue.
    pub(super) fn apply_queue_change(&mut self, change: &TaskChange) {
        let before = change.before == Some(task::State::Queued);
        let after = change.task.state == task::State::Queued;
        if before != after {
            let assigned = change.dispatch.is_some().then(|| change.task.rank());
            let counted = self.matching.change_queue(change.route, |queue| {
                if after {
                    queue.enter(change.task.rank());
                    return true;
                }
                queue.leave(assigned)
            });
            self.mark_changed();
            if counted == Some(false) {
                self.report_mismatch("a task left a queue that was empty");
            }
        }
        if before && after {
            // Its priority may have changed.
            self.matching.change_queue(change.route, |queue| queue.head = queue.head.min(change.task.rank()));
        }
        if after {
            self.arrivals += 1;
            self.release_held(Some(change.route));
        }
        if change.task.state.is_final() && change.task.target.is_own() {
            self.remove_queue(change.route);
        }
    }

    /// Corrects the count of a queue in which a claim found nothing: a count that is too high would be claimed without end.
    pub(super) fn correct_queue(&mut self, id: RouteId, count: u64) {
        self.matching.change_queue(id, |queue| {
            if queue.queued != count {
                tracing::warn!(
                    route = id.0,
                    counted = queue.queued,
                    ready = count,
                    "corrected the count of a queue"
                );
                queue.queued = count;
            }
        });
        self.mark_changed();
    }

    /// Returns whether any route of a worker has tasks that no pending claim may take.
    pub(super) fn has_backlog(&self, entry: &WorkerEntry) -> bool {
        let groups = entry.groups.iter().filter_map(|id| self.matching.group(*id));
        groups.into_iter().any(|group| !group.waiting.is_empty())
    }

    /// Returns the routes with ready tasks that a worker covers, those with the oldest heads, and `one` of them in any case.
    pub(super) fn claimed_routes(&mut self, worker: &WorkerKey, one: RouteId) -> Vec<RouteId> {
        let groups = self.workers.get(worker).map(|entry| entry.groups.clone()).unwrap_or_default();
        let mut oldest: Vec<_> =
            groups.into_iter().flat_map(|id| self.matching.oldest(id, MAX_CLAIMED_ROUTES)).collect();
        oldest.sort_unstable();
        let mut routes: Vec<_> = oldest.into_iter().map(|(_, id)| id).filter(|id| *id != one).collect();
        routes.truncate(MAX_CLAIMED_ROUTES - 1);
        routes.push(one);
        routes
    }

    /// Returns the profile of a worker, with the present capabilities of its agent.
    pub(super) fn profile(&self, entry: &WorkerEntry) -> Profile {
        let group = entry.groups.first().and_then(|id| self.matching.group(*id));
        let profile = entry.profile.clone();
        match group {
            Some(group) => Profile { capabilities: Arc::clone(&group.profile.capabilities), ..profile },
            None => profile,
        }
    }

    pub(super) fn set_admission(&mut self, agent: &AgentKey, admission: Admission) {
        self.matching.set_admission(agent, admission);
        self.mark_changed();
    }

    /// Takes the probe of a worker's agent, if it is due. Returns the agent that the probe is for.
    pub(super) fn take_probe(&mut self, key: &WorkerKey) -> Option<AgentName> {
        let agent = self.workers.get(key)?.agent();
        if self.matching.own_admission(&agent) != Admission::Probe {
            return None;
        }
        self.set_admission(&agent, Admission::ProbeInFlight);
        Some(agent.1)
    }

    /// Gives back a probe that no task came of, so that the next task may be it.
    pub(super) fn return_probe(&mut self, agent: &AgentKey) {
        if self.matching.own_admission(agent) == Admission::ProbeInFlight {
            self.set_admission(agent, Admission::Probe);
        }
    }

    /// Returns the number of slots of a worker that may be given out now.
    pub(super) fn available(&self, entry: &WorkerEntry) -> usize {
        let free = if entry.load().is_some() { entry.admission.limit(entry.free()) } else { 0 };
        let free = entry.quota_limit(free);
        self.matching.admission(&entry.agent()).limit(free)
    }

    /// Reports an inconsistency in the scheduler's counts. The counts stay within their bounds.
    pub(super) fn report_mismatch(&self, what: &'static str) {
        self.mismatches.inc();
        tracing::error!(what, "scheduler slot mismatch");
        debug_assert!(false, "scheduler slot mismatch: {what}");
    }
}

/// Returns the worker that a route names.
fn named_worker(route: &Route) -> Option<WorkerKey> {
    match &route.target {
        Target::Worker(worker) => Some((route.namespace.clone(), worker.clone())),
        _ => None,
    }
}
